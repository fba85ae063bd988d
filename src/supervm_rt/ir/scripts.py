"""What kind of script guards an output: the standard templates, by bitcoind's names."""

from __future__ import annotations

import enum
from collections.abc import Iterator

_MAX_KEYS = 20
# Each key with the longest push, and the three operations around them.
_MAX_MULTISIG_BYTES = _MAX_KEYS * (5 + 65) + 2 + 2 + 1
_CHECKMULTISIG = 0xAE
_RETURN = 0x6A


class ScriptType(enum.StrEnum):
    """The names that bitcoind's RPC gives."""

    PUBKEY = "pubkey"
    PUBKEYHASH = "pubkeyhash"
    SCRIPTHASH = "scripthash"
    MULTISIG = "multisig"
    NULLDATA = "nulldata"
    WITNESS_V0_KEYHASH = "witness_v0_keyhash"
    WITNESS_V0_SCRIPTHASH = "witness_v0_scripthash"
    WITNESS_V1_TAPROOT = "witness_v1_taproot"
    ANCHOR = "anchor"
    WITNESS_UNKNOWN = "witness_unknown"
    NONSTANDARD = "nonstandard"


_WITNESS_TYPES = {
    (0, 20): ScriptType.WITNESS_V0_KEYHASH,
    (0, 32): ScriptType.WITNESS_V0_SCRIPTHASH,
    (1, 32): ScriptType.WITNESS_V1_TAPROOT,
}
_ANCHOR = b"\x4e\x73"


def script_type(script: bytes) -> ScriptType:
    """The kind of an output's script."""
    if key_hash(script) is not None:
        return ScriptType.PUBKEYHASH
    if script_hash(script) is not None:
        return ScriptType.SCRIPTHASH
    if (program := witness_program(script)) is not None:
        return _witness_type(*program)
    if script[:1] == bytes([_RETURN]) and _only_pushes(script[1:]):
        return ScriptType.NULLDATA
    if len(script) in {35, 67} and script[0] == len(script) - 2 and script[-1] == 0xAC and _is_key(script[1:-1]):
        return ScriptType.PUBKEY
    if _is_multisig(script):
        return ScriptType.MULTISIG
    return ScriptType.NONSTANDARD


def key_hash(script: bytes) -> bytes | None:
    """The 20 bytes that a P2PKH script pays to."""
    if len(script) == 25 and script[:3] == b"\x76\xa9\x14" and script[23:] == b"\x88\xac":
        return script[3:23]
    return None


def script_hash(script: bytes) -> bytes | None:
    """The 20 bytes that a P2SH script pays to."""
    if len(script) == 23 and script[:2] == b"\xa9\x14" and script[22] == 0x87:
        return script[2:22]
    return None


def witness_program(script: bytes) -> tuple[int, bytes] | None:
    """Version (0 to 16) and program (2 to 40 bytes) of a witness output (BIP 141)."""
    if not 4 <= len(script) <= 42 or script[1] != len(script) - 2:
        return None
    if script[0] != 0 and not 0x51 <= script[0] <= 0x60:
        return None
    return (script[0] - 0x50 if script[0] else 0), script[2:]


def _witness_type(version: int, program: bytes) -> ScriptType:
    if (version, len(program)) in _WITNESS_TYPES:
        return _WITNESS_TYPES[version, len(program)]
    if version == 1 and program == _ANCHOR:
        return ScriptType.ANCHOR
    return ScriptType.WITNESS_UNKNOWN if version else ScriptType.NONSTANDARD


def _operations(script: bytes) -> Iterator[tuple[int, bytes] | None]:
    """Operation codes with what they push; None, as the last, where a push runs past the end."""
    at = 0
    while at < len(script):
        code = script[at]
        at += 1
        length = code if code <= 75 else 0
        if 76 <= code <= 78:
            width = 1 << (code - 76)
            if at + width > len(script):
                yield None
                return
            length = int.from_bytes(script[at : at + width], "little")
            at += width
        if at + length > len(script):
            yield None
            return
        yield code, script[at : at + length]
        at += length


def _only_pushes(script: bytes) -> bool:
    return all(operation is not None and operation[0] <= 0x60 for operation in _operations(script))


def _is_key(data: bytes) -> bool:
    return bool(data) and len(data) == {2: 33, 3: 33, 4: 65, 6: 65, 7: 65}.get(data[0])


def _is_multisig(script: bytes) -> bool:
    if script[-1:] != bytes([_CHECKMULTISIG]) or len(script) > _MAX_MULTISIG_BYTES:
        return False
    operations: list[tuple[int, bytes]] = []
    for operation in _operations(script):
        if operation is None:
            return False
        operations.append(operation)
    if len(operations) < 4 or operations[-1][0] != _CHECKMULTISIG:
        return False
    needed, keys, total = operations[0], operations[1:-2], operations[-2]
    count = _small_number(*total)
    threshold = _small_number(*needed)
    if count is None or threshold is None or not 1 <= threshold <= count <= _MAX_KEYS:
        return False
    return len(keys) == count and all(_is_key(data) for _, data in keys)


def _small_number(code: int, data: bytes) -> int | None:
    """A number from 1 up that is pushed in the shortest way."""
    if 0x51 <= code <= 0x60:
        return code - 0x50
    # Up to 16 has its own operation; above, one byte with a length before it is the shortest, up to the number of keys.
    if code == 1 and 16 < data[0] <= _MAX_KEYS:
        return data[0]
    return None
