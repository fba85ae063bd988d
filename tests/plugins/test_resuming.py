"""bitcoin-blockfiles goes on from a position, and starts again where the folder is no longer the one that it read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.plugins.folder import MAGIC, BlocksFolder, payload, record
from tests.plugins.host import WARNING, PluginHost, Published

CHUNK = 16384


def settings(folder: BlocksFolder, **more: object) -> dict[str, object]:
    return {"blocks_dir": str(folder.path), "network": "regtest", **more}


@pytest.fixture
def folder(tmp_path: Path) -> BlocksFolder:
    return BlocksFolder(tmp_path / "blocks", bytes(range(1, 9)))


def read(library: Path, folder: BlocksFolder, position: bytes | None = None) -> PluginHost:
    with PluginHost(library, settings(folder), position=position) as host:
        host.until_idle()
    return host


def fill(library: Path, folder: BlocksFolder) -> list[Published]:
    """Three files with four blocks each; gives what a first run published."""
    for number in range(3):
        folder.append(number, b"".join(record(payload(4 * number + block)) for block in range(4)))
    return read(library, folder).blocks


def test_every_position_leads_to_the_rest(blockfiles: Path, folder: BlocksFolder) -> None:
    blocks = fill(blockfiles, folder)
    for number, block in enumerate(blocks):
        again = read(blockfiles, folder, block.position)
        assert again.payloads() == [payload(rest) for rest in range(number + 1, 12)]
        assert [later.position for later in again.blocks] == [later.position for later in blocks[number + 1 :]]
        assert again.lines(WARNING) == []


def test_a_position_is_small(blockfiles: Path, folder: BlocksFolder) -> None:
    assert {len(block.position) for block in fill(blockfiles, folder)} == {26}


def test_what_was_written_meanwhile(blockfiles: Path, folder: BlocksFolder) -> None:
    last = fill(blockfiles, folder)[-1]
    folder.append(2, record(payload(12)), preallocate=CHUNK)
    folder.append(3, record(payload(13)))
    assert read(blockfiles, folder, last.position).payloads() == [payload(12), payload(13)]


def test_what_was_written_meanwhile_to_a_lower_file_with_room(blockfiles: Path, folder: BlocksFolder) -> None:
    """A node that validates a snapshot has two files open; one of them may stay behind for long."""
    folder.append(0, record(payload(0)), preallocate=CHUNK)
    folder.append(1, record(payload(1)))
    folder.append(2, record(payload(2)), preallocate=CHUNK)
    first = read(blockfiles, folder)
    folder.append(0, record(payload(3)))
    folder.append(2, record(payload(4)))
    second = read(blockfiles, folder, first.blocks[-1].position)
    assert second.payloads() == [payload(3), payload(4)]
    folder.append(0, record(payload(5)))
    folder.finish(0)
    assert read(blockfiles, folder, second.blocks[-1].position).payloads() == [payload(5)]
    assert read(blockfiles, folder, second.blocks[0].position).payloads() == [payload(5), payload(4)]


def test_files_below_the_position_are_not_read_again(blockfiles: Path, folder: BlocksFolder) -> None:
    position = fill(blockfiles, folder)[9].position
    folder.file(0).unlink()
    folder.file(1).write_bytes(b"no longer of interest")
    assert read(blockfiles, folder, position).payloads() == [payload(10), payload(11)]


def everything_again(host: PluginHost) -> bool:
    return any("every file is read again" in line for line in host.lines(WARNING))


def test_the_file_is_gone(blockfiles: Path, folder: BlocksFolder) -> None:
    position = fill(blockfiles, folder)[9].position
    folder.file(2).unlink()
    again = read(blockfiles, folder, position)
    assert everything_again(again)
    assert again.payloads() == [payload(number) for number in range(8)]


def test_the_file_is_shorter(blockfiles: Path, folder: BlocksFolder) -> None:
    position = fill(blockfiles, folder)[-1].position
    folder.ends[2] -= 108
    folder.finish(2)
    again = read(blockfiles, folder, position)
    assert everything_again(again)
    assert again.payloads() == [payload(number) for number in range(11)]


def test_the_file_holds_other_blocks(blockfiles: Path, folder: BlocksFolder) -> None:
    position = fill(blockfiles, folder)[-1].position
    folder.ends[2] = 0
    folder.append(2, b"".join(record(payload(number)) for number in range(20, 26)))
    again = read(blockfiles, folder, position)
    assert everything_again(again)
    assert again.payloads() == [payload(number) for number in (*range(8), *range(20, 26))]


def test_a_lower_file_holds_other_blocks(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(payload(0)), preallocate=CHUNK)
    folder.append(1, record(payload(1)))
    position = read(blockfiles, folder).blocks[-1].position
    folder.ends[0] = 0
    folder.append(0, record(payload(2)) + record(payload(3)))
    again = read(blockfiles, folder, position)
    assert again.lines(WARNING) == [
        "blk00000.dat was changed below byte 108, up to which it had been read: it is read again from its beginning"
    ]
    assert again.payloads() == [payload(2), payload(3)]


def test_another_key(blockfiles: Path, folder: BlocksFolder, tmp_path: Path) -> None:
    position = fill(blockfiles, folder)[-1].position
    shutil.rmtree(folder.path)
    other = BlocksFolder(folder.path, bytes(range(11, 19)))
    fill(blockfiles, other)
    again = read(blockfiles, other, position)
    assert everything_again(again)
    assert len(again.payloads()) == 12


@pytest.mark.parametrize(
    "position",
    [
        b"\0",
        b"\1\0",
        bytes(26),
        b"\1\2" + bytes(24),
        b"\2\0" + bytes(24),
        b"\1\0" + bytes(48),
        b"\1\0" + b"\xff" * 24,
        b"\1\0" + bytes(24) * 9,
    ],
    ids=["short", "no cursor", "version 0", "flag", "version 2", "twice a file", "offset", "long"],
)
def test_a_position_of_something_else(blockfiles: Path, folder: BlocksFolder, position: bytes) -> None:
    fill(blockfiles, folder)
    again = read(blockfiles, folder, position)
    assert everything_again(again)
    assert len(again.payloads()) == 12


def test_a_record_whose_length_covered_others(blockfiles: Path, folder: BlocksFolder) -> None:
    """Going on behind such a record finds what it covered, as the first run does."""
    broken = MAGIC + (300).to_bytes(4, "little") + payload(1)
    folder.append(0, broken + b"".join(record(payload(number)) for number in range(2, 6)))
    first = read(blockfiles, folder)
    assert read(blockfiles, folder, first.blocks[0].position).payloads() == [payload(number) for number in range(2, 6)]
