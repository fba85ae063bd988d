"""Scripts and addresses of the five Bitcoin networks: base58check, bech32 (BIP 173) and bech32m (BIP 350)."""

from __future__ import annotations

import hashlib

from supervm_rt.ir.networks import Network, network_of
from supervm_rt.ir.scripts import key_hash, script_hash, witness_program

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUES = {letter: value for value, letter in enumerate(_BASE58)}
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_VALUES = {letter: value for value, letter in enumerate(_BECH32)}
_BECH32_FINAL = 1
_BECH32M_FINAL = 0x2BC830A3
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_MAX_LENGTH = 90


class AddressError(ValueError):
    """Text that is not an address, or not one of this network."""


def address_of(script: bytes, network: str) -> str | None:
    """The address that an output's script pays to, as bitcoind prints it; None where there is none (P2PK, multisig, data).

    Raises ConfigurationError for an unknown network.
    """
    rules = network_of(network)
    if (hash_ := key_hash(script)) is not None:
        return _base58check(bytes([rules.key_version]) + hash_)
    if (hash_ := script_hash(script)) is not None:
        return _base58check(bytes([rules.script_version]) + hash_)
    if (program := witness_program(script)) is not None:
        version, data = program
        if version or len(data) in {20, 32}:
            return _segwit_address(rules.prefix, version, data)
    return None


def script_of(address: str, network: str) -> bytes:
    """The script that pays to an address.

    Raises AddressError (a ValueError) that says what is wrong with the text, and ConfigurationError for an unknown network.
    """
    rules = network_of(network)
    prefix, _, rest = address.rpartition("1")
    if rest and prefix.lower() in {"bc", "tb", "bcrt"}:
        return _script_of_segwit(address, rules)
    return _script_of_base58(address, rules)


def _base58check(payload: bytes) -> str:
    data = payload + _checksum(payload)
    number = int.from_bytes(data, "big")
    letters = []
    while number:
        number, digit = divmod(number, 58)
        letters.append(_BASE58[digit])
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + "".join(reversed(letters))


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]


def _script_of_base58(address: str, rules: Network) -> bytes:
    if not 1 <= len(address) <= _MAX_LENGTH:
        raise AddressError(f"an address has 1 to {_MAX_LENGTH} characters, this has {len(address)}")
    number = 0
    for letter in address:
        if letter not in _BASE58_VALUES:
            raise AddressError(f"{address!r} is no address: {letter!r} does not occur in one")
        number = number * 58 + _BASE58_VALUES[letter]
    zeros = len(address) - len(address.lstrip("1"))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    if len(data) < 5 or data[-4:] != _checksum(data[:-4]):
        raise AddressError(f"{address!r} is no address: its checksum is wrong")
    if len(data) != 25:
        raise AddressError(f"{address!r} is no address: it holds {len(data) - 5} bytes instead of 20")
    hash_ = data[1:21]
    if data[0] == rules.key_version:
        return b"\x76\xa9\x14" + hash_ + b"\x88\xac"
    if data[0] == rules.script_version:
        return b"\xa9\x14" + hash_ + b"\x87"
    raise AddressError(f"{address!r} is not an address of the network {rules.name}")


def _segwit_address(prefix: str, version: int, program: bytes) -> str:
    values = [version, *_to_five_bits(program)]
    final = _BECH32M_FINAL if version else _BECH32_FINAL
    remainder = _polymod([*_expanded(prefix), *values, 0, 0, 0, 0, 0, 0]) ^ final
    values += [(remainder >> 5 * (5 - place)) & 31 for place in range(6)]
    return prefix + "1" + "".join(_BECH32[value] for value in values)


def _script_of_segwit(address: str, rules: Network) -> bytes:
    if len(address) > _MAX_LENGTH:
        raise AddressError(f"an address has 1 to {_MAX_LENGTH} characters, this has {len(address)}")
    if address not in {address.lower(), address.upper()}:
        raise AddressError(f"{address!r} is no address: it mixes upper and lower case")
    prefix, _, rest = address.lower().rpartition("1")
    if prefix != rules.prefix:
        raise AddressError(f"{address!r} is not an address of the network {rules.name}: there they begin with {rules.prefix}1")
    if len(rest) < 8 or any(letter not in _BECH32_VALUES for letter in rest):
        raise AddressError(f"{address!r} is no address: it is too short or has characters that do not occur in one")
    values = [_BECH32_VALUES[letter] for letter in rest]
    version = values[0]
    if version > 16:
        raise AddressError(f"{address!r} is no address: there is no witness version {version}")
    if _polymod([*_expanded(prefix), *values]) != (_BECH32M_FINAL if version else _BECH32_FINAL):
        raise AddressError(f"{address!r} is no address: its checksum is wrong")
    program = _from_five_bits(values[1:-6])
    if program is None:
        raise AddressError(f"{address!r} is no address: its last bits are not the padding that they have to be")
    if not 2 <= len(program) <= 40 or (version == 0 and len(program) not in {20, 32}):
        raise AddressError(f"{address!r} is no address: {len(program)} bytes are no program of witness version {version}")
    return bytes([0x50 + version if version else 0, len(program)]) + program


def _expanded(prefix: str) -> list[int]:
    return [*(ord(letter) >> 5 for letter in prefix), 0, *(ord(letter) & 31 for letter in prefix)]


def _polymod(values: list[int]) -> int:
    remainder = 1
    for value in values:
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for place, part in enumerate(_GENERATOR):
            if top >> place & 1:
                remainder ^= part
    return remainder


def _to_five_bits(data: bytes) -> list[int]:
    """Groups of five bits, the last filled up with zeros."""
    bits = len(data) * 8
    number = int.from_bytes(data, "big") << -bits % 5
    return [number >> shift & 31 for shift in range(-(-bits // 5) * 5 - 5, -1, -5)]


def _from_five_bits(values: list[int]) -> bytes | None:
    """The bytes again; None where what fills the last group is longer than four bits or not zero."""
    number = 0
    for value in values:
        number = number << 5 | value
    surplus = len(values) * 5 % 8
    if surplus > 4 or number & (1 << surplus) - 1:
        return None
    return (number >> surplus).to_bytes(len(values) * 5 // 8, "big")
