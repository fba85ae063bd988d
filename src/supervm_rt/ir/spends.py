"""Which outputs an input may spend, by what it shows: most scripts are known by a hash of a key or script that the input reveals.

Only a hint, so that few spent outputs need to be looked up: whoever uses it looks at the output itself before it believes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from supervm_rt.ir.scripts import key_hash, script_hash, witness_program
from supervm_rt.model.ir import TransactionInput


class Spends:
    """Tells for inputs whether they may spend an output that one of these scripts guards."""

    def __init__(self, scripts: Iterable[bytes]) -> None:
        self._hash160: set[bytes] = set()
        self._sha256: set[bytes] = set()
        self._all = False
        for script in scripts:
            program = witness_program(script)
            short = key_hash(script) or script_hash(script)
            if program is not None and program[0] == 0 and len(program[1]) == 20:
                short = program[1]
            if short is not None and _ripemd160_works():
                self._hash160.add(short)
            elif program is not None and program[0] == 0 and len(program[1]) == 32:
                self._sha256.add(program[1])
            else:
                self._all = True  # taproot and plain keys reveal nothing that says which output it is

    def possible(self, input_: TransactionInput) -> bool:
        """False where the input cannot spend such an output."""
        if self._all:
            return True
        if input_.script:
            for pushed in _pushed(input_.script):
                if pushed is None or self._known(pushed):
                    return True
        return any(map(self._known, input_.witness))

    def _known(self, shown: bytes) -> bool:
        digest = hashlib.sha256(shown).digest()
        if digest in self._sha256:
            return True
        return bool(self._hash160) and hashlib.new("ripemd160", digest).digest() in self._hash160


def _pushed(script: bytes) -> Iterator[bytes | None]:
    """What the script pushes; None where it does more than push, or a push runs past the end."""
    at = 0
    while at < len(script):
        code = script[at]
        at += 1
        if code > 78:
            if code > 0x60:
                yield None
                return
            continue
        length = code
        if code >= 76:
            width = 1 << (code - 76)
            length = int.from_bytes(script[at : at + width], "little")
            at += width
        if at + length > len(script):
            yield None
            return
        yield script[at : at + length]
        at += length


def _ripemd160_works() -> bool:
    """Some builds of OpenSSL leave it out."""
    try:
        hashlib.new("ripemd160")
    except ValueError:
        return False
    return True
