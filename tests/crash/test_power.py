"""The model of a write-back cache: what is synced is kept, and all else may be there or not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

from tests.crash.power import SECTOR, Call, Disk

LONG = bytes(range(256)) * 8


def create(inode: int, name: str) -> Call:
    return Call("C", inode, 0, name, "", b"")


def write(inode: int, offset: int, data: bytes) -> Call:
    return Call("W", inode, offset, "", "", data)


def sync(inode: int) -> Call:
    return Call("S", inode, 0, "", "", b"")


def rename(old: str, new: str) -> Call:
    return Call("R", 0, 0, old, new, b"")


SYNC_FOLDER = Call("D", 0, 0, "", "", b"")


def after(tmp_path: Path, calls: Iterable[Call], cuts: int = 200) -> list[dict[str, bytes]]:
    """What many power cuts leave, the certain part first."""
    disk = Disk(tmp_path)
    for call in calls:
        disk.take(call)
    return [disk.cut(Random(seed) if seed else None) for seed in range(cuts)]


def test_what_was_synced_with_its_name_is_always_there(tmp_path: Path) -> None:
    for left in after(tmp_path, [create(1, "a"), write(1, 0, b"data"), sync(1), SYNC_FOLDER]):
        assert left == {"a": b"data"}


def test_a_file_may_be_lost_whose_name_was_not_synced(tmp_path: Path) -> None:
    lefts = after(tmp_path, [create(1, "a"), write(1, 0, b"data"), sync(1)])
    assert {tuple(left.items()) for left in lefts} == {(), (("a", b"data"),)}


def test_a_rename_may_outrun_the_bytes_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"old")
    lefts = after(tmp_path, [create(1, "draft"), SYNC_FOLDER, write(1, 0, b"data"), rename("draft", "new")])
    assert {left["new"] for left in lefts} >= {b"old", b"", b"data", bytes(4)}
    assert {"draft" in left for left in lefts} == {True, False}


def test_writes_are_torn_at_sectors_and_come_in_any_order(tmp_path: Path) -> None:
    lefts = after(tmp_path, [create(1, "a"), SYNC_FOLDER, write(1, 100, LONG), write(1, 4096, b"last")], 400)
    contents = {left["a"] for left in lefts}
    assert any(content[:4096].count(0) == 4096 and content.endswith(b"last") for content in contents if len(content) == 4100)
    for content in contents:
        for sector in range(0, min(len(content), 100 + len(LONG)), SECTOR):
            start, end = max(sector, 100), min(sector + SECTOR, 100 + len(LONG))
            found = content[start:end]
            assert found in {LONG[start - 100 : end - 100][: len(found)], bytes(len(found))}
    assert len(contents) > 20


def test_a_sector_that_was_durable_stays_where_nothing_wrote(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 2000)
    inode = (tmp_path / "a").stat().st_ino
    for left in after(tmp_path, [write(inode, 600, b"y" * 100), Call("T", inode, 1500, "", "", b"")]):
        assert left["a"][:600] + left["a"][700:1500] == b"x" * 1400
        assert len(left["a"]) in {1500, 2000}
