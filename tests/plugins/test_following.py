"""bitcoin-blockfiles follows a folder that grows, in every way in which a node lets it grow."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugins.folder import MAGIC, BlocksFolder, payload, record
from tests.plugins.host import DEADLINE, ERROR, WARNING, PluginHost
from tests.plugins.permissions import permissions_bind

KEY = bytes.fromhex("8f21d4907b3ea65c")
CHUNK = 16384


@pytest.fixture(params=[b"", KEY], ids=["plain", "obscured"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> BlocksFolder:
    key: bytes = request.param
    return BlocksFolder(tmp_path / "blocks", key)


def follow(library: Path, folder: BlocksFolder, **more: object) -> PluginHost:
    return PluginHost(library, {"blocks_dir": str(folder.path), "network": "regtest", "follow": True, **more})


def wait_until(condition: Callable[[], bool]) -> None:
    """For what announces itself by no event."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_says_end_of_input_whenever_it_has_caught_up(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(payload(0)))
    with follow(blockfiles, folder) as host:
        assert host.until_idle(1) == [payload(0)]
        for number in range(1, 6):
            folder.append(0, record(payload(number)))
            assert host.until_idle(1 + number) == [payload(block) for block in range(number + 1)]
    assert host.ends == 6
    assert host.lines(WARNING) == []


@pytest.mark.parametrize("preallocate", [0, CHUNK, 1 << 24])
def test_a_record_that_comes_in_pieces(blockfiles: Path, folder: BlocksFolder, preallocate: int) -> None:
    """No piece of it is taken for the whole, wherever it is cut."""
    expected = [payload(0)]
    folder.append(0, record(payload(0)), preallocate=preallocate)
    with follow(blockfiles, folder) as host:
        host.until_idle()
        for number, cut in enumerate((1, 3, 4, 7, 8, 9, 88, 4000), start=1):
            block = payload(number, 6000)
            folder.append(0, record(block)[:cut], preallocate=preallocate)
            # Another file shows that the plugin has looked since, without a guess at how long that takes.
            folder.append(number, record(payload(100 + number)))
            expected.append(payload(100 + number))
            assert host.until_blocks(len(expected)) == expected
            folder.append(0, record(block)[cut:], preallocate=preallocate)
            expected.append(block)
            assert host.until_blocks(len(expected)) == expected
        host.until_idle(2)
    assert host.lines(WARNING) == host.lines(ERROR) == []


def test_a_last_block_that_ends_in_zeros(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(payload(0)), preallocate=CHUNK)
    with follow(blockfiles, folder) as host:
        host.until_idle()
        for number in range(1, 4):
            folder.append(0, record(payload(number) + bytes(36)), preallocate=CHUNK)
            host.until_idle(1 + number)
    assert host.payloads() == [payload(0), *(payload(number) + bytes(36) for number in range(1, 4))]


def test_a_block_that_ends_in_many_zeros_comes_with_the_next(blockfiles: Path, tmp_path: Path) -> None:
    folder = BlocksFolder(tmp_path / "blocks")
    last = payload(1) + bytes(500)
    folder.append(0, record(payload(0)) + record(last), preallocate=CHUNK)
    with follow(blockfiles, folder) as host:
        assert host.until_idle() == [payload(0)]
        folder.append(0, record(payload(2)))
        assert host.until_blocks(3) == [payload(0), last, payload(2)]


def test_a_new_file(blockfiles: Path, folder: BlocksFolder) -> None:
    with follow(blockfiles, folder) as host:
        for number in range(5):
            folder.append(number, record(payload(2 * number)) + record(payload(2 * number + 1)), preallocate=CHUNK)
            host.until_blocks(2 * number + 2)
            folder.finish(number)
    assert host.payloads() == [payload(number) for number in range(10)]
    assert host.lines(ERROR) == []
    assert all("has no block files (blk00000.dat) yet" in line for line in host.lines(WARNING))


def test_two_files_that_grow_in_turns(blockfiles: Path, folder: BlocksFolder) -> None:
    """As a node's do while it validates a snapshot. Every position leads to exactly what had not come before it."""
    for number in (0, 1):
        folder.append(number, record(payload(number)), preallocate=CHUNK)
    with follow(blockfiles, folder) as host:
        host.until_idle()
        for number in range(2, 12):
            folder.append(number % 2, record(payload(number)))
            host.until_blocks(number + 1)
        folder.append(2, record(payload(12)), preallocate=CHUNK)
        host.until_blocks(13)
        folder.append(0, record(payload(13)))
        assert host.until_blocks(14) == [payload(number) for number in range(14)]
    for number, block in enumerate(host.blocks, start=1):
        configuration = {"blocks_dir": str(folder.path), "network": "regtest"}
        with PluginHost(blockfiles, dict(configuration), position=block.position) as again:
            assert sorted(again.until_idle()) == sorted(payload(rest) for rest in range(number, 14))


def test_a_writer_that_halts_within_the_last_bytes(blockfiles: Path, folder: BlocksFolder) -> None:
    """Such a block looks as if it ended in zeros. It is published wrong, and right as soon as the rest is there."""
    whole = record(payload(1))
    folder.append(0, record(payload(0)) + whole[:-10], preallocate=CHUNK)
    with follow(blockfiles, folder) as host:
        assert host.until_blocks(2)[0] == payload(0)
        assert host.payloads()[1][:-10] == payload(1)[:-10]
        folder.append(0, whole[-10:])
        assert host.until_blocks(4)[2:] == [payload(0), payload(1)]
        assert host.lines(WARNING) == [
            "blk00000.dat was changed below byte 216, up to which it had been read: it is read again from its beginning"
        ]


def test_a_node_that_writes_over_its_last_blocks(blockfiles: Path, folder: BlocksFolder) -> None:
    """After a crash it goes on where its index ends, which may be before the end of what it had written."""
    folder.append(0, b"".join(record(payload(number)) for number in range(4)), preallocate=CHUNK)
    with follow(blockfiles, folder) as host:
        host.until_blocks(4)
        folder.ends[0] = 2 * 108
        folder.append(0, b"".join(record(payload(number)) for number in range(10, 13)))
        host.until_blocks(9)
    assert host.payloads()[4:] == [payload(number) for number in (0, 1, 10, 11, 12)]


@pytest.mark.parametrize("preallocate", [0, CHUNK])
def test_a_node_that_writes_over_blocks_far_below(blockfiles: Path, folder: BlocksFolder, preallocate: int) -> None:
    """Its new blocks come at once, not when they reach the last block that was read."""
    folder.append(0, b"".join(record(payload(number)) for number in range(20)), preallocate=preallocate)
    with follow(blockfiles, folder) as host:
        host.until_idle()
        folder.ends[0] = 108
        for number in range(30, 35):
            ends = host.ends
            folder.append(0, record(payload(number)))
            while payload(number) not in host.payloads():
                ends += 1
                host.until_idle(ends)
    assert len(host.lines(WARNING)) == 1
    assert "is being written to below byte 2160" in host.lines(WARNING)[0]


def test_a_file_that_is_only_touched(blockfiles: Path, folder: BlocksFolder) -> None:
    """Costs a second reading at most, and never a block."""
    folder.append(0, record(payload(0)), preallocate=CHUNK)
    with follow(blockfiles, folder) as host:
        host.until_idle()
        folder.file(0).touch()
        folder.append(0, record(payload(1)))
        host.until_blocks(2)
        folder.append(0, record(payload(2)))
        while payload(2) not in host.payloads():
            host.until_idle(host.ends + 1)
    assert set(host.payloads()) == {payload(number) for number in range(3)}


def test_a_gap_that_is_filled_later(blockfiles: Path, folder: BlocksFolder) -> None:
    """What such a node has not yet written over: the end of a record, and old ones behind it."""
    folder.append(0, record(payload(0)) + b"\x07" * 216 + record(payload(9)), preallocate=CHUNK)
    with follow(blockfiles, folder) as host:
        assert host.until_blocks(2) == [payload(0), payload(9)]
        folder.ends[0] = 108
        folder.append(0, record(payload(1)) + record(payload(2)))
        assert host.until_blocks(6)[2:] == [payload(0), payload(1), payload(2), payload(9)]


def test_pieces_from_a_writer_that_never_waits(blockfiles: Path, folder: BlocksFolder) -> None:
    """Records of many sizes, each in writes of 4096 bytes, while the plugin reads as fast as it can."""
    blocks = [payload(number, 80 + (number * 7919) % 20_000) for number in range(300)]

    def write() -> None:
        for number, block in enumerate(blocks):
            data = record(block)
            for at in range(0, len(data), 4096):
                folder.append(number // 100, data[at : at + 4096], preallocate=1 << 16)
            if number % 100 == 99:
                folder.finish(number // 100)

    folder.append(0, b"")
    writer = threading.Thread(target=write)
    with follow(blockfiles, folder) as host:
        writer.start()
        try:
            known = set(blocks)
            seen: dict[bytes, None] = {}
            taken = 0
            while len(seen) < len(blocks):
                host.until_blocks(taken + 1)
                # A machine that stops the writer for long within the last bytes of a record makes that block come twice.
                seen |= dict.fromkeys(block for block in host.payloads()[taken:] if block in known)
                taken = len(host.payloads())
        finally:
            writer.join()
    assert list(seen) == blocks


def test_an_empty_folder_is_waited_for(blockfiles: Path, tmp_path: Path) -> None:
    """The runtime may be started before the node, whose key appears with its first file."""
    folder = BlocksFolder(tmp_path / "blocks")
    with follow(blockfiles, folder, start_height=0) as host:
        assert host.until_idle() == []
        assert "has no block files (blk00000.dat) yet" in host.lines(WARNING)[0]
        folder.key = KEY
        # The node makes its key file and then fills it.
        (folder.path / "xor.dat").touch()
        (folder.path / "index").mkdir()
        (folder.path / "xor.dat").write_bytes(KEY)
        folder.append(0, record(payload(0)), preallocate=CHUNK)
        assert host.until_blocks(1) == [payload(0)]
        assert host.blocks[0].height == 0
    assert host.lines(ERROR) == []


def test_pruned_files(blockfiles: Path, folder: BlocksFolder) -> None:
    for number in range(3):
        folder.append(number, record(payload(number)))
    with follow(blockfiles, folder) as host:
        host.until_blocks(3)
        folder.file(0).unlink()
        folder.file(1).unlink()
        folder.append(3, record(payload(3)))
        assert host.until_blocks(4)[3:] == [payload(3)]
    assert host.lines(WARNING) == host.lines(ERROR) == []


def test_a_folder_that_is_replaced(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(payload(0)))
    with follow(blockfiles, folder) as host:
        host.until_idle()
        folder.path.rename(folder.path.with_name("old"))
        host.until_log(ERROR, "cannot be read any more: No such file or directory")
        other = BlocksFolder(folder.path, bytes(range(1, 9)))
        other.append(0, record(payload(1)))
        assert host.until_blocks(2) == [payload(0), payload(1)]
        host.until_idle(2)
        other.append(0, record(payload(2)))
        assert host.until_blocks(3)[2:] == [payload(2)]


def test_a_file_that_becomes_readable(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(payload(0)))
    folder.append(1, record(payload(1)))
    folder.file(0).chmod(0)
    with permissions_bind(), follow(blockfiles, folder) as host:
        assert host.until_idle() == [payload(1)]
        folder.file(0).chmod(0o600)
        assert host.until_blocks(2) == [payload(1), payload(0)]
    assert len(host.lines(ERROR)) == 1


def test_a_truncated_file_that_a_node_has_left_behind(blockfiles: Path, folder: BlocksFolder) -> None:
    """Not the highest file, and nobody wrote to it for long: what lies behind its damage is read, and the damage reported."""
    broken = MAGIC + (3_000_000).to_bytes(4, "little") + payload(1)
    folder.append(0, record(payload(0)) + broken + record(payload(2)) + record(payload(3))[:-1])
    folder.append(1, record(payload(4)))
    os.utime(folder.file(0), (1_600_000_000, 1_600_000_000))
    with follow(blockfiles, folder) as host:
        assert host.until_idle() == [payload(0), payload(2), payload(4)]
    assert len(host.lines(WARNING)) == 2


def test_stop_while_following(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(payload(0)))
    with follow(blockfiles, folder) as host:
        host.until_idle()
        began = time.monotonic()
        host.stop()
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("following", [True, False])
def test_stop_while_it_waits_for_room(blockfiles: Path, folder: BlocksFolder, following: bool) -> None:
    folder.append(0, b"".join(record(payload(number, 10_000)) for number in range(100)))
    configuration = {"blocks_dir": str(folder.path), "network": "regtest", "follow": following}
    with PluginHost(blockfiles, dict(configuration), ring_bytes=1 << 16) as host:
        wait_until(lambda: host.native.statistics().waits > 0)
    assert 0 < len(host.blocks) < 100
    assert host.ends == 0
    assert host.payloads() == [payload(number, 10_000) for number in range(len(host.blocks))]
    with PluginHost(blockfiles, dict(configuration), position=host.blocks[-1].position) as again:
        assert again.until_idle() == [payload(number, 10_000) for number in range(len(host.blocks), 100)]


@pytest.mark.parametrize("following", [True, False])
def test_beats_while_it_is_idle(blockfiles: Path, folder: BlocksFolder, following: bool) -> None:
    folder.append(0, record(payload(0)))
    configuration = {"blocks_dir": str(folder.path), "network": "regtest", "follow": following}
    with PluginHost(blockfiles, dict(configuration), heartbeat_interval_ms=30) as host:
        host.until_idle()
        assert host.native.heartbeat_asked
        signs: set[int] = set()

        def beats() -> int:
            signs.add(host.native.last_sign_of_life)
            return len(signs)

        wait_until(lambda: beats() > 10)
