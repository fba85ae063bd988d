"""What the plugins of a story say: as records of a file for the library ``teller.c``, and as calls of the SDK."""

from __future__ import annotations

import functools
import hashlib
import struct
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import supervm_rt
from fuzz.reorgs.feed import Said
from supervm_rt import sdk
from supervm_rt.sdk.messages import EARLIEST
from supervm_rt.store import FinalInput, ReorgInput

ID = "org.example.teller"
VERSION = "1.0.0"
SOURCE = Path(__file__).parent / "teller.c"
BLOCK, REORG, FINALIZED = 1, 2, 3
HEADER = struct.Struct("<5B3xIIQQq")
UNKNOWN = 2**64 - 1
TIME_UNKNOWN = -(2**63)
WEIGHT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that a plugin says."""

    kind: int
    position: bytes = b""
    hash: bytes = b""
    parent: bytes = b""
    height: int | None = None
    other: int | None = None
    """The final height of a block; to_height of a reorg."""
    weight: int | None = None
    time: int | None = None
    """Of a block, in nanoseconds."""
    payload: bytes = b""
    orphans: tuple[bytes, ...] = ()

    def record(self) -> bytes:
        """As ``teller.c`` reads it."""
        weight = b"" if self.weight is None else self.weight.to_bytes(WEIGHT_BYTES, "little")
        payload = b"".join(self.orphans) or self.payload
        height, other = (UNKNOWN if number is None else number for number in (self.height, self.other))
        lengths = map(len, (self.hash, self.parent, self.position, weight))
        time = TIME_UNKNOWN if self.time is None else self.time
        header = HEADER.pack(self.kind, *lengths, len(payload), len(self.orphans), height, other, time)
        return b"".join((header, self.hash, self.parent, weight, self.position, payload))

    async def say(self, host: sdk.Plugin) -> None:
        """Over gRPC."""
        if self.kind == FINALIZED:
            host.finalized(self.height, self.hash, position=self.position)
        elif self.kind == REORG:
            host.reorg(self.height, self.other, self.orphans, position=self.position)
        else:
            await host.publish(
                self.payload,
                height=self.height,
                hash=self.hash,
                parent=self.parent,
                position=self.position,
                final_height=self.other,
                weight=self.weight,
                time=self.time,
            )


def statement(said: Said, *, claims: bool) -> Statement:
    """``claims``: the chain's bytes do not say hash, parent, height, weight and time, so the plugin does."""
    match said.input:
        case FinalInput(hash_, height):
            return Statement(FINALIZED, hash=hash_, height=height)
        case ReorgInput(from_height, to_height, orphans):
            return Statement(REORG, said.input.position, height=from_height, other=to_height, orphans=orphans)
    if not claims:
        return Statement(BLOCK, said.input.position, payload=said.raw)
    block = said.candidate
    assert block is not None
    return Statement(
        BLOCK,
        said.input.position,
        block.hash,
        block.parent,
        block.height,
        block.final_height,
        block.weight,
        time_of(block.hash),
        said.raw,
    )


def time_of(hash_: bytes) -> int | None:
    """The time that is said of a block whose bytes do not tell it: any that a plugin can say, or none."""
    number = hashlib.sha256(hash_).digest()
    if number[8] % 8 == 0:
        return None
    # Most are of this century, some before 1970 or at the ends of what there is.
    time = int.from_bytes(number[:8], "little", signed=True)
    return max(time, EARLIEST) if number[8] % 8 == 1 else abs(time) >> 3


def write_story(path: Path, begin: bytes, statements: Sequence[Statement]) -> None:
    """``begin``: the position that the host has before the first of them; empty: none."""
    path.write_bytes(bytes([len(begin)]) + begin + b"".join(each.record() for each in statements))


def teller(begin: bytes, statements: Sequence[Statement]) -> Callable[[sdk.Plugin], Awaitable[None]]:
    """The same as a plugin for ``sdk.serve``."""

    async def produce(host: sdk.Plugin) -> None:
        at = 0
        if host.position != begin:
            places = [place for place, each in enumerate(statements, 1) if each.position and each.position == host.position]
            if not places:
                host.log(4, "the host resumes at a position that this story does not have")
                host.request_shutdown(1)
                await host.wait_stopped()
                return
            (at,) = places
        for each in statements[at:]:
            await each.say(host)
        host.end_of_input()
        await host.wait_stopped()

    return produce


@functools.cache
def library(family: str) -> bytes:
    """Compiles the plugin for a chain family, once."""
    with tempfile.TemporaryDirectory(prefix="supervm-teller-") as folder:
        target = Path(folder) / "teller.so"
        flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
        include = f"-I{supervm_rt.get_include()}"
        command = ["cc", *flags, f'-DCHAIN="{family}"', include, "-pthread", "-o", str(target), str(SOURCE)]
        subprocess.run(command, check=True)
        return target.read_bytes()


def write_plugin(folder: Path, family: str, *, remote: bool, sandbox: bool) -> Path:
    """The plugin's folder. ``remote``: of one that dials in."""
    folder.mkdir()
    fields = {"id": ID, "name": "teller", "version": f'"{VERSION}"', "chain": family, "capabilities": "[block_stream]"}
    if remote:
        fields["runMode"] = "grpc"
    else:
        (folder / "teller.so").write_bytes(library(family))
        fields |= {
            "binary": "./teller.so",
            "runMode": "native",
            "resources": "{cpu: 1, memory: 64MiB, storage: 0}",
            "security": f"{{sandbox: {str(sandbox).lower()}, seccomp_profile: baseline, read_paths: [story]}}",
        }
    (folder / "plugin.yaml").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    return folder
