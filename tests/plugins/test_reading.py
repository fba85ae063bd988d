"""bitcoin-blockfiles reads a folder that no node is writing to: what it publishes, and what it says of damage."""

from __future__ import annotations

import bz2
import os
import time
from pathlib import Path

import pytest

from tests.data import ABSENT
from tests.plugins.folder import MAGIC, BlocksFolder, obscure, payload, read_file, record
from tests.plugins.host import ERROR, WARNING, InitFailed, PluginHost
from tests.plugins.permissions import permissions_bind

KEY = bytes.fromhex("8f21d4907b3ea65c")
CHUNK = 16384
BITCOIN_DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "bitcoin"


@pytest.fixture(params=[b"", KEY], ids=["plain", "obscured"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> BlocksFolder:
    key: bytes = request.param
    return BlocksFolder(tmp_path / "blocks", key)


def settings(folder: BlocksFolder, **more: object) -> dict[str, object]:
    return {"blocks_dir": str(folder.path), "network": "regtest", **more}


def age(folder: BlocksFolder) -> None:
    """Makes the files look as if nobody had written to them for a long time."""
    for path in folder.path.glob("blk*.dat"):
        os.utime(path, (1_600_000_000, 1_600_000_000))


def read(library: Path, folder: BlocksFolder, **more: object) -> PluginHost:
    """Reads the folder to its end; gives what was said."""
    with PluginHost(library, settings(folder, **more)) as host:
        host.until_idle()
    assert host.ends == 1
    return host


def test_one_file(blockfiles: Path, folder: BlocksFolder) -> None:
    blocks = [payload(number, 80 + number) for number in range(50)]
    folder.append(0, b"".join(map(record, blocks)))
    host = read(blockfiles, folder)
    assert host.payloads() == blocks
    assert host.lines(WARNING) == host.lines(ERROR) == []
    assert {block.height for block in host.blocks} == {None}
    assert [(metric.name, metric.value) for metric in host.metrics][-2:] == [
        ("blocks_read", 50),
        ("bytes_read", sum(map(len, blocks))),
    ]


def test_files_in_the_order_of_their_numbers(blockfiles: Path, folder: BlocksFolder) -> None:
    numbers = [3, 4, 10, 99_999, 100_000, 1_234_567]
    for number in reversed(numbers):
        folder.append(number, record(payload(number)))
    for other in (
        "blk0001.dat",
        "blk000002.dat",
        "blk00007.dat.bak",
        "rev00003.dat",
        "xblk00008.dat",
        "blk.dat",
        "blk99999999999.dat",
    ):
        (folder.path / other).write_bytes(obscure(record(payload(77)), folder.key))
    host = read(blockfiles, folder)
    assert host.payloads() == [payload(number) for number in numbers]
    assert host.lines(WARNING) == []


@pytest.mark.parametrize("size", [80, 81, 4096 - 8, 65536, 4_000_000])
def test_sizes(blockfiles: Path, folder: BlocksFolder, size: int) -> None:
    blocks = [os.urandom(size - 1) + b"\x01", payload(2)]
    folder.append(0, b"".join(map(record, blocks)))
    assert read(blockfiles, folder).payloads() == blocks


def test_preallocated_zeros_end_a_file(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(payload(0)) + record(payload(1)), preallocate=1 << 24)
    folder.append(1, record(payload(2)), preallocate=CHUNK)
    host = read(blockfiles, folder)
    assert host.payloads() == [payload(number) for number in range(3)]
    assert host.lines(WARNING) == []


@pytest.mark.parametrize("zeros", [1, 4, 36, 64])
def test_a_last_block_may_end_in_zeros(blockfiles: Path, folder: BlocksFolder, zeros: int) -> None:
    last = payload(1) + bytes(zeros)
    folder.append(0, record(payload(0)) + record(last), preallocate=CHUNK)
    assert read(blockfiles, folder).payloads() == [payload(0), last]
    folder.finish(0)
    assert read(blockfiles, folder).payloads() == [payload(0), last]


def test_a_last_block_may_end_in_many_zeros_where_the_file_ends_with_it(blockfiles: Path, folder: BlocksFolder) -> None:
    last = payload(1) + bytes(1000)
    folder.append(0, record(payload(0)) + record(last))
    assert read(blockfiles, folder).payloads() == [payload(0), last]


def test_a_block_of_zeros_with_something_behind_it(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(bytes(5000)) + record(payload(0)), preallocate=CHUNK)
    assert read(blockfiles, folder).payloads() == [bytes(5000), payload(0)]


def test_a_key_that_turns_a_header_into_zeros(blockfiles: Path, tmp_path: Path) -> None:
    """The bytes on the disk are zero where plain data equals the key; nothing but a whole tail of them ends a file."""
    folder = BlocksFolder(tmp_path / "blocks", MAGIC + (160).to_bytes(4, "little"))
    blocks = [payload(0, 160), payload(1, 160), folder.key * 20, payload(3, 160)]
    folder.append(0, b"".join(map(record, blocks)), preallocate=CHUNK)
    assert folder.file(0).read_bytes()[:8] == bytes(8)
    assert read(blockfiles, folder).payloads() == blocks


def test_zeros_between_records(blockfiles: Path, folder: BlocksFolder) -> None:
    """Raw zeros with data behind them: a hole, as a crash of the machine leaves one."""
    folder.append(0, record(payload(0)))
    folder.ends[0] += 3_000_000
    folder.append(0, record(payload(1)))
    host = read(blockfiles, folder)
    assert host.payloads() == [payload(0), payload(1)]
    assert host.lines(WARNING) == ["blk00000.dat: byte 108: 3000000 bytes are not a block of this network: skipped"]


def test_garbage_between_records_is_reported_once_per_gap(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, b"garbage" + record(payload(0)) + MAGIC + record(payload(1)) + b"\xfa\xbf" * 500_000 + record(payload(2)))
    folder.append(1, record(payload(3)) + b"the end")
    host = read(blockfiles, folder)
    assert host.payloads() == [payload(number) for number in range(4)]
    assert [line for line in host.lines(WARNING) if "does not begin" not in line] == [
        "blk00000.dat: byte 0: 7 bytes are not a block of this network: skipped",
        "blk00000.dat: byte 115: 4 bytes are not a block of this network: skipped",
        "blk00000.dat: byte 227: 1000000 bytes are not a block of this network: skipped",
        "blk00001.dat: byte 108: 7 bytes up to the end of the file are not a block of this network: left out",
    ]


def test_a_header_across_the_pieces_in_which_garbage_is_searched(blockfiles: Path, folder: BlocksFolder) -> None:
    for number, garbage in enumerate(range((1 << 20) - 9, (1 << 20) + 2)):
        folder.append(number, b"\x01" * garbage + record(payload(number)))
    assert read(blockfiles, folder).payloads() == [payload(number) for number in range(11)]


def test_reports_of_a_damaged_file_are_bounded(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, b"".join(record(payload(number)) + b"?" for number in range(1000)))
    host = read(blockfiles, folder)
    assert len(host.payloads()) == 1000
    assert len(host.lines(WARNING)) == 17
    assert host.lines(WARNING)[-1] == "blk00000.dat: further damage in this file is not listed"


@pytest.mark.parametrize("length", [0, 1, 79, 4_000_001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_impossible_length(blockfiles: Path, folder: BlocksFolder, length: int) -> None:
    broken = MAGIC + length.to_bytes(4, "little") + payload(1)
    folder.append(0, record(payload(0)) + broken + record(payload(2)))
    host = read(blockfiles, folder)
    assert host.payloads() == [payload(0), payload(2)]
    assert host.lines(WARNING) == ["blk00000.dat: byte 108: 108 bytes are not a block of this network: skipped"]


def test_a_length_beyond_the_file_hides_nothing(blockfiles: Path, folder: BlocksFolder) -> None:
    broken = MAGIC + (3_000_000).to_bytes(4, "little") + payload(1)
    folder.append(0, record(payload(0)) + broken + record(payload(2)) + record(payload(3)))
    host = read(blockfiles, folder)
    assert host.payloads() == [payload(0), payload(2), payload(3)]
    assert host.lines(WARNING) == ["blk00000.dat: byte 108: 108 bytes are a record with an impossible length: skipped"]


def test_a_length_that_covers_other_records_hides_nothing(blockfiles: Path, folder: BlocksFolder) -> None:
    broken = MAGIC + (300).to_bytes(4, "little") + payload(1)
    whole = record(payload(0)) + broken + b"".join(record(payload(number)) for number in range(2, 6))
    folder.append(0, whole)
    host = read(blockfiles, folder)
    assert host.payloads() == [payload(0), whole[116:416], *(payload(number) for number in range(2, 6))]
    assert host.lines(WARNING) == [
        "blk00000.dat: byte 216: 200 bytes belong to a record whose length is wrong: read again as records of their own"
    ]


@pytest.mark.parametrize("cut", [1, 20, 99, 103, 104, 107])
def test_a_truncated_file(blockfiles: Path, folder: BlocksFolder, cut: int) -> None:
    folder.append(0, record(payload(0)) + record(payload(1))[:-cut])
    folder.append(1, record(payload(2)) + record(payload(3))[:-cut])
    host = read(blockfiles, folder)
    assert host.payloads() == [payload(0), payload(2)]
    assert host.lines(WARNING) == [
        f"blk0000{number}.dat: byte 108: {108 - cut} bytes are a truncated record, the last of the file: left out"
        for number in (0, 1)
    ]


def test_a_half_written_last_block_in_preallocated_space(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(payload(0)) + record(payload(1, 5000))[:2000], preallocate=CHUNK)
    host = read(blockfiles, folder)
    assert host.payloads() == [payload(0)]
    assert host.lines(WARNING) == ["blk00000.dat: byte 108: 2000 bytes are a truncated record, the last of the file: left out"]


def test_a_block_above_what_the_host_takes_is_left_out(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(payload(0)) + record(payload(1, 500_000)) + record(payload(2)))
    with PluginHost(blockfiles, settings(folder), ring_bytes=1 << 16) as host:
        assert host.until_idle() == [payload(0), payload(2)]
        assert [line for line in host.lines(WARNING) if "byte 108: 500000 bytes are one block, larger than" in line]


def test_start_height_is_claimed_for_the_first_block_alone(blockfiles: Path, folder: BlocksFolder) -> None:
    for number in range(3):
        folder.append(number, record(payload(2 * number)) + record(payload(2 * number + 1)))
    host = read(blockfiles, folder, start_height=120_000)
    assert [block.height for block in host.blocks] == [120_000, None, None, None, None, None]
    with PluginHost(blockfiles, settings(folder, start_height=120_000), position=host.blocks[0].position) as again:
        again.until_idle()
        assert {block.height for block in again.blocks} == {None}


def test_start_height_is_not_claimed_behind_a_file_that_cannot_be_read(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.file(0).symlink_to("nowhere")
    folder.append(1, record(payload(1)))
    assert [block.height for block in read(blockfiles, folder, start_height=5).blocks] == [None]


def test_files_that_cannot_be_read_do_not_keep_the_others_back(blockfiles: Path, folder: BlocksFolder) -> None:
    for number in (0, 2, 4, 6):
        folder.append(number, record(payload(number)))
    folder.file(2).chmod(0)
    folder.file(1).mkdir()
    folder.file(3).symlink_to("nowhere")
    os.mkfifo(folder.file(5))
    with permissions_bind(), PluginHost(blockfiles, settings(folder)) as host:
        assert host.until_idle() == [payload(0), payload(4), payload(6)]
    assert [line.split(": its blocks")[0] for line in host.lines(ERROR)] == [
        "blk00001.dat cannot be read at byte 0: it is not a regular file",
        "blk00002.dat cannot be read at byte 0: Permission denied",
        "blk00003.dat cannot be read at byte 0: No such file or directory",
        "blk00005.dat cannot be read at byte 0: it is not a regular file",
    ]
    folder.file(2).chmod(0o600)
    with PluginHost(blockfiles, settings(folder), position=host.blocks[-1].position) as again:
        assert again.until_idle() == [payload(2)], "a file that could not be read is not forgotten"


def test_many_unreadable_files_are_summed_up(blockfiles: Path, folder: BlocksFolder) -> None:
    for number in range(40):
        folder.file(number).symlink_to("nowhere")
    folder.append(40, record(payload(40)))
    host = read(blockfiles, folder)
    assert host.payloads() == [payload(40)]
    assert len(host.lines(ERROR)) == 17
    assert host.lines(ERROR)[-1] == "24 more files cannot be read"
    with PluginHost(blockfiles, settings(folder), position=host.blocks[-1].position) as again:
        assert again.until_idle() == [payload(40)], "more unread files than a position can name: all are read again"


def failure(library: Path, configuration: dict[str, object]) -> tuple[int, str]:
    """Code and report of a plugin that does not get past plugin_init."""
    with pytest.raises(InitFailed) as caught, PluginHost(library, configuration):
        pass
    errors = [text for level, text in caught.value.log if level == ERROR]
    assert len(errors) == 1
    return caught.value.code, errors[0]


def test_a_missing_folder(blockfiles: Path, tmp_path: Path) -> None:
    code, line = failure(blockfiles, {"blocks_dir": str(tmp_path / "none")})
    assert code == 3
    assert line == (
        f"blocks_dir {tmp_path}/none cannot be read: No such file or directory: "
        "it must be a node's blocks folder, readable for the user that runs the host"
    )


def test_a_file_instead_of_a_folder(blockfiles: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, line = failure(blockfiles, {"blocks_dir": str(tmp_path / "file")})
    assert code == 3
    assert "Not a directory" in line


def test_a_folder_without_permission(blockfiles: Path, tmp_path: Path) -> None:
    folder = BlocksFolder(tmp_path / "blocks")
    folder.append(0, record(payload(0)))
    folder.path.chmod(0)
    try:
        with permissions_bind():
            code, line = failure(blockfiles, settings(folder))
    finally:
        folder.path.chmod(0o700)
    assert code == 3
    assert "Permission denied" in line


def test_an_empty_folder(blockfiles: Path, tmp_path: Path) -> None:
    code, line = failure(blockfiles, {"blocks_dir": str(tmp_path)})
    assert code == 4
    assert line == f"{tmp_path} has no block files (blk00000.dat): set blocks_dir to the blocks folder of a node's data folder"


def test_the_data_folder_instead_of_its_blocks_folder(blockfiles: Path, tmp_path: Path) -> None:
    (tmp_path / "blocks").mkdir()
    assert "it has a folder blocks inside: is that the one?" in failure(blockfiles, {"blocks_dir": str(tmp_path)})[1]


@pytest.mark.parametrize("size", [0, 7, 9, 4096])
def test_a_key_of_the_wrong_size(blockfiles: Path, tmp_path: Path, size: int) -> None:
    folder = BlocksFolder(tmp_path / "blocks")
    folder.append(0, record(payload(0)))
    (folder.path / "xor.dat").write_bytes(bytes(size))
    code, line = failure(blockfiles, settings(folder))
    assert code == 5
    assert line == f"{folder.path}/xor.dat cannot be used: it is not 8 bytes long; restore the node's own file"


def test_a_key_that_cannot_be_read(blockfiles: Path, tmp_path: Path) -> None:
    folder = BlocksFolder(tmp_path / "blocks", KEY)
    folder.append(0, record(payload(0)))
    (folder.path / "xor.dat").chmod(0)
    with permissions_bind():
        code, line = failure(blockfiles, settings(folder))
    assert code == 5
    assert "xor.dat cannot be used: Permission denied" in line


def test_files_of_another_network(blockfiles: Path, folder: BlocksFolder) -> None:
    folder.append(0, record(payload(0)))
    code, line = failure(blockfiles, {"blocks_dir": str(folder.path)})
    assert code == 6
    assert line == "blk00000.dat holds blocks of regtest, not of main: set network to regtest, or blocks_dir to another folder"


def test_files_that_were_copied_without_their_key(blockfiles: Path, tmp_path: Path) -> None:
    folder = BlocksFolder(tmp_path / "blocks", KEY)
    folder.append(0, record(payload(0)))
    (folder.path / "xor.dat").unlink()
    host = read(blockfiles, folder)
    assert host.payloads() == []
    assert "if the folder was copied, its xor.dat must be copied too" in host.lines(WARNING)[0]


@pytest.mark.parametrize(
    ("network", "magic"),
    [("main", "f9beb4d9"), ("testnet3", "0b110907"), ("testnet4", "1c163f28"), ("signet", "0a03cf40"), ("regtest", "fabfb5da")],
)
def test_networks(blockfiles: Path, folder: BlocksFolder, network: str, magic: str) -> None:
    folder.append(0, record(payload(0), bytes.fromhex(magic)))
    assert read(blockfiles, folder, network=network).payloads() == [payload(0)]


def test_a_folder_that_nobody_writes_to_is_read_at_once(blockfiles: Path, folder: BlocksFolder) -> None:
    """Only a file that was written a moment ago may have a block in it that is being written."""
    folder.append(0, record(payload(0) + bytes(4)), preallocate=CHUNK)
    age(folder)
    began = time.monotonic()
    assert read(blockfiles, folder).payloads() == [payload(0) + bytes(4)]
    assert time.monotonic() - began < 5


def test_real_mainnet_blocks(blockfiles: Path, folder: BlocksFolder) -> None:
    source = BITCOIN_DATA / "blocks1-256.bz2"
    if not source.exists():
        pytest.skip(ABSENT)
    plain = bz2.decompress(source.read_bytes())
    folder.append(0, plain, preallocate=1 << 24)
    host = read(blockfiles, folder, network="main")
    assert len(host.payloads()) == 255
    assert b"".join(record(block, bytes.fromhex("f9beb4d9")) for block in host.payloads()) == plain
    assert host.payloads() == [block for _, block in read_file(plain, b"", bytes.fromhex("f9beb4d9"))]


def test_a_block_that_imitates_records_stays_one_block_before_a_torn_record(blockfiles: Path, folder: BlocksFolder) -> None:
    imitation = (MAGIC + (100_000).to_bytes(4, "little")) * 2_000
    sound = imitation + bytes(range(1, 200)) * 600
    folder.append(0, record(sound) + MAGIC + (500_000).to_bytes(4, "little") + b"torn" * 30_000)
    with PluginHost(blockfiles, {"blocks_dir": str(folder.path), "network": "regtest"}) as host:
        blocks = host.until_idle()
    assert len(blocks) == 1
