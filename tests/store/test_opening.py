"""Opening a store: what is refused, in which words, and that a refusal changes nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervm_rt.errors import StoreCorrupt, StoreError, StoreLocked, StoreTooNew
from supervm_rt.store import Store, digest
from tests.store.support import CHAIN, PLUGIN, chain_of, dev_mirror, environment, fill

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can become another user to be refused something")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chain.store"


@pytest.fixture
def filled(path: Path) -> Path:
    fill(path, chain_of(40, size=5000))
    return path


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def refusal(path: Path, kind: type[StoreError], *, read_only: bool = False, create: bool = True) -> str:
    """Opens, expects exactly this refusal, and that the folder is as it was. Gives the words."""
    before = contents(path.parent) if path.parent.is_dir() else {}
    with pytest.raises(StoreError) as caught:
        Store.open(path, read_only=read_only, create=create)
    assert type(caught.value) is kind
    assert caught.value.remedy
    after = contents(path.parent) if path.parent.is_dir() else {}
    after.pop(path.name + ".lock", None)
    before.pop(path.name + ".lock", None)
    assert after == before
    return str(caught.value)


def as_nobody(action: Callable[[], str]) -> str:
    """Runs the action in a process of a user without rights; gives what it returns or the error that it raises."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            said = action()
        except BaseException as error:  # told to the parent
            said = f"{type(error).__name__}: {error}"
        os.write(writable, said.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def height_of_tip(path: Path) -> str:
    with Store.open(path, read_only=True) as store:
        tip = store.chain(CHAIN).tip()
        return "none" if tip is None else str(tip.height)


def test_a_new_store_is_made_where_there_is_none(path: Path) -> None:
    with Store.open(path) as store:
        assert store.chains() == []
        assert not store.read_only
    with Store.open(path, create=False) as store:
        assert store.path == path


def test_without_create_a_missing_store_is_refused(path: Path) -> None:
    assert f"there is no store at {path}" in refusal(path, StoreError, create=False)
    assert f"there is no store at {path}" in refusal(path, StoreError, read_only=True)
    assert not path.exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    words = refusal(tmp_path / "nowhere" / "chain.store", StoreError)
    assert "nowhere" in words
    assert "create its folder first" in words


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path, StoreError)
    assert "is a folder" in refusal(tmp_path, StoreError, read_only=True)


def test_a_device_is_no_store() -> None:
    with pytest.raises(StoreError, match="not a file"):
        Store.open("/dev/null")


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "data", [b"", b"x", b"a text file, and nobody's store\n" * 1000, bytes(8192), b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_other_files_are_refused_and_left_alone(path: Path, data: bytes, read_only: bool) -> None:
    path.write_bytes(data)
    assert str(path) in refusal(path, StoreCorrupt, read_only=read_only)
    assert set(contents(path.parent)) == {path.name}


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_database_of_somebody_else_is_refused_and_left_alone(path: Path, journal: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("CREATE TABLE chains (id INTEGER)")
    connection.commit()
    connection.close()
    assert "not a store" in refusal(path, StoreCorrupt)
    assert "not a store" in refusal(path, StoreCorrupt, read_only=True)
    assert set(contents(path.parent)) == {path.name}


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_store_is_refused(filled: Path, read_only: bool) -> None:
    connection = sqlite3.connect(filled)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    words = refusal(filled, StoreTooNew, read_only=read_only)
    assert "version 3" in words
    assert "up to 2" in words


def test_a_newer_version_that_only_the_log_tells_is_seen(filled: Path) -> None:
    """What another process has written and not yet copied into the file."""
    newer = sqlite3.connect(filled)
    newer.execute("PRAGMA wal_autocheckpoint = 0")
    newer.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreTooNew, match="version 9"):
        Store.open(filled, read_only=True)
    with pytest.raises(StoreTooNew, match="version 9"):
        Store.open(filled)
    newer.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_missing_tables_are_damage(filled: Path, read_only: bool) -> None:
    connection = sqlite3.connect(filled)
    connection.execute("DROP TABLE events")
    connection.close()
    assert "events" in refusal(filled, StoreCorrupt, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
def test_an_overwritten_start_is_damage(filled: Path, read_only: bool) -> None:
    with filled.open("r+b") as file:
        file.write(b"\xaa" * 200)
    assert str(filled) in refusal(filled, StoreCorrupt, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("part", [0.001, 0.3, 0.9])
def test_a_truncated_store_is_damage(filled: Path, read_only: bool, part: float) -> None:
    os.truncate(filled, int(filled.stat().st_size * part))
    assert str(filled) in refusal(filled, StoreCorrupt, read_only=read_only)


def test_every_overwritten_page_is_noticed_by_the_digest(filled: Path) -> None:
    """Whatever page is overwritten: either it is said that the store is damaged, or nothing of the chain was lost."""
    whole = filled.read_bytes()
    with Store.open(filled, read_only=True) as store:
        right = digest(store, CHAIN)
    noticed = 0
    for start in range(0, len(whole), 16384):
        filled.write_bytes(whole[:start] + b"\x5a" * 16384 + whole[start + 16384 :])
        try:
            with Store.open(filled, read_only=True) as store:
                assert digest(store, CHAIN) == right
        except StoreCorrupt:
            noticed += 1
    assert noticed >= len(whole) // 16384 - 9  # pages of indices and of the feed, which a digest does not read


def test_one_flipped_bit_of_a_block_is_noticed(filled: Path) -> None:
    data = bytearray(filled.read_bytes())
    with Store.open(filled, read_only=True) as store:
        reader = store.chain(CHAIN)
        middle = reader.find_block("20")
        place = bytes(data).index(reader.raw(middle)[:64])
    data[place + 3] ^= 1
    filled.write_bytes(data)
    with Store.open(filled, read_only=True) as store:
        reader = store.chain(CHAIN)
        with pytest.raises(StoreCorrupt, match=f"the bytes of block {b'b20'.hex()} have changed"):
            reader.raw(reader.find_block("20"))
        assert reader.ir(reader.find_block("20")) == b"ir of b20"


def test_damage_that_appears_while_the_store_is_open_breaks_the_mirror_with_that_error(filled: Path) -> None:
    size = filled.stat().st_size
    with Store.open(filled) as store:
        descriptor = os.open(filled, os.O_WRONLY)
        os.pwrite(descriptor, b"\x5a" * (size - 16384), 16384)
        with pytest.raises(StoreCorrupt, match=str(filled)):
            dev_mirror(store).apply(PLUGIN, chain_of(60, size=5000)[40:])
    os.close(descriptor)


def test_a_second_writer_is_refused_and_told_who_has_it(filled: Path) -> None:
    code = (
        "import sys; from supervm_rt.store import Store\n"
        f"store = Store.open({str(filled)!r}); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"open\n"
        words = refusal(filled, StoreLocked)
        assert f"process {other.pid} " in words
        assert height_of_tip(filled) == "39"  # readers are not refused
        other.stdin.close()
        other.wait(30)
    with Store.open(filled) as store:
        assert store.chain(CHAIN).tip() is not None


def test_a_second_writer_in_the_same_process_is_refused(filled: Path) -> None:
    with Store.open(filled), pytest.raises(StoreLocked, match=f"process {os.getpid()} "):
        Store.open(filled)
    Store.open(filled).close()


def test_the_lock_holds_whatever_path_leads_to_the_store(filled: Path) -> None:
    link = filled.with_name("link")
    link.symlink_to(filled)
    with Store.open(filled), pytest.raises(StoreLocked):
        Store.open(link)
    with Store.open(link), pytest.raises(StoreLocked):
        Store.open(filled)


def test_the_lock_of_a_killed_process_is_free(filled: Path) -> None:
    code = (
        "import os, signal; from supervm_rt.store import Store\n"
        f"Store.open({str(filled)!r}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == -9
    with Store.open(filled) as store:
        assert len(store.chain(CHAIN).events(limit=100)) == 40


def test_a_log_without_its_store_is_not_taken_for_that_of_a_new_one(filled: Path) -> None:
    filled.with_name(filled.name + "-wal").write_bytes(b"left over")
    filled.unlink()
    assert "-wal" in refusal(filled, StoreError)


@pytest.mark.parametrize("left", [b"12", b"123\n", bytes(6), b"12\0\0\0\0"], ids=["half", "whole", "zeros", "half and zeros"])
def test_a_lock_file_that_a_crash_left_half_written_is_no_obstacle(path: Path, left: bytes) -> None:
    """After a failure of the machine a file may have its size, and zeros where its bytes were not written yet."""
    lock = path.with_name(path.name + ".lock")
    lock.write_bytes(left)
    with Store.open(path):
        assert lock.read_bytes() == b"%d\n" % os.getpid()


def test_a_creation_that_was_killed_leaves_no_obstacle(path: Path) -> None:
    path.with_name(f".{path.name}.draft").write_bytes(b"half a store")
    Store.open(path).close()
    assert set(contents(path.parent)) == {path.name, path.name + ".lock"}


def test_what_a_failure_of_the_machine_left_of_a_creation_goes_with_the_next_opening(filled: Path) -> None:
    """A file system may keep the rename of the draft and lose the removal of its journal before it."""
    filled.with_name(f".{filled.name}.draft-journal").write_bytes(b"left over")
    height_of_tip(filled)
    assert filled.with_name(f".{filled.name}.draft-journal").exists()  # readers change nothing
    Store.open(filled).close()
    assert set(contents(filled.parent)) == {filled.name, filled.name + ".lock"}


def test_a_new_store_is_on_the_disk_before_it_gets_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a failure of the machine could leave a store that is empty."""
    steps: list[tuple[str, int]] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        steps.append(("sync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        steps.append(("rename", self.stat().st_ino))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    Store.open(path).close()
    store, folder = path.stat().st_ino, path.parent.stat().st_ino
    assert steps == [("sync", store), ("rename", store), ("sync", folder)]


@pytest.mark.parametrize("name", ["with space", "per%20cent", "what?x=1&mode=ro", "#hash", ":memory:", "ünïcode", "a'b\"c"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    fill(tmp_path / name, chain_of(2))
    assert height_of_tip(tmp_path / name) == "1"
    assert (tmp_path / name).stat().st_size > 0


def test_a_store_leaves_nothing_but_itself_and_its_lock_file(filled: Path) -> None:
    assert set(contents(filled.parent)) == {filled.name, filled.name + ".lock"}


def test_closing_twice_is_closing(path: Path) -> None:
    store = Store.open(path)
    store.close()
    store.close()
    Store.open(path).close()


def test_a_read_only_store_refuses_to_mirror(filled: Path) -> None:
    with Store.open(filled, read_only=True) as store, pytest.raises(StoreError, match="read-only"):
        dev_mirror(store)


def test_reading_does_not_change_the_file(filled: Path) -> None:
    before = filled.read_bytes()
    with Store.open(filled, read_only=True) as store:
        digest(store, CHAIN)
    assert filled.read_bytes() == before


def test_a_reader_in_the_same_process_does_not_drop_the_writers_locks(filled: Path) -> None:
    """Closing a descriptor of a file drops the process's POSIX locks on it; another program could then reset the log."""
    with Store.open(filled) as store:
        mirror = dev_mirror(store)
        Store.open(filled, read_only=True).close()
        with pytest.raises(StoreLocked):
            Store.open(filled)
        code = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0); c.execute('PRAGMA locking_mode = EXCLUSIVE')\n"
            "try: c.execute('BEGIN EXCLUSIVE'); c.execute('PRAGMA journal_mode = DELETE').fetchall()\n"
            "except sqlite3.OperationalError as error: print(error)\n"
        )
        answer = subprocess.run(
            [sys.executable, "-c", code, str(filled)], capture_output=True, text=True, check=True, env=environment()
        )
        assert "locked" in answer.stdout
        mirror.apply(PLUGIN, chain_of(45, size=5000)[40:])
    assert height_of_tip(filled) == "44"


@as_root
def test_a_store_that_may_not_be_written_can_be_read(shared_folder: Path) -> None:
    """The folder, too, belongs to somebody else, and no files of a writer are there."""
    path = shared_folder / "chain.store"
    fill(path, chain_of(10))
    path.chmod(0o644)
    assert as_nobody(lambda: height_of_tip(path)) == "9"
    assert set(contents(shared_folder)) == {path.name, path.name + ".lock"}
    said = as_nobody(lambda: str(Store.open(path)))
    assert said.startswith("StoreError")
    assert "may not write" in said


@as_root
def test_a_reader_without_rights_sees_what_a_living_writer_commits(shared_folder: Path) -> None:
    path = shared_folder / "chain.store"
    fill(path, chain_of(10))
    path.chmod(0o644)
    inputs = chain_of(30)
    with Store.open(path) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, inputs[10:20])
        assert as_nobody(lambda: height_of_tip(path)) == "19"
        mirror.apply(PLUGIN, inputs[20:])
        assert as_nobody(lambda: height_of_tip(path)) == "29"


@as_root
def test_a_reader_without_rights_notices_when_a_writer_starts(shared_folder: Path) -> None:
    path = shared_folder / "chain.store"
    inputs = chain_of(30)
    fill(path, inputs[:10])
    path.chmod(0o644)
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()

    def read_twice() -> str:
        with Store.open(path, read_only=True) as store:
            reader = store.chain(CHAIN)
            first = reader.tip()
            os.write(from_child, b".")
            os.read(to_child, 1)
            second = reader.tip()
        assert first is not None
        assert second is not None
        return f"{first.height} {second.height}"

    child = os.fork()
    if child == 0:
        os.read(to_parent, 1)
        with Store.open(path) as store:
            dev_mirror(store).apply(PLUGIN, inputs[10:])
            os.write(from_parent, b".")
            os.read(to_parent, 1)
        os._exit(0)
    assert as_nobody(read_twice) == "9 29"
    os.write(from_child, b".")
    assert os.waitpid(child, 0)[1] == 0
    for descriptor in (to_child, from_parent, to_parent, from_child):
        os.close(descriptor)


@as_root
def test_files_and_folders_without_rights_are_named(shared_folder: Path) -> None:
    path = shared_folder / "chain.store"
    fill(path, chain_of(3))
    path.chmod(0o600)
    assert "may not read" in as_nobody(lambda: height_of_tip(path))
    assert as_nobody(lambda: str(Store.open(shared_folder / "new.store"))).startswith("StoreError")
    shared_folder.chmod(0o700)
    assert as_nobody(lambda: height_of_tip(path)).startswith("StoreError")


def test_a_file_in_the_place_of_the_lock_file_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "poetry.lock"
    other.write_bytes(b"precious")
    assert "poetry.lock is in the way" in refusal(tmp_path / "poetry", StoreError)
    assert other.read_bytes() == b"precious"
    other.unlink()
    (tmp_path / "target").write_bytes(b"precious")
    other.symlink_to("target")
    refusal(tmp_path / "poetry", StoreError)
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_store_whose_name_another_one_could_need_stays(tmp_path: Path) -> None:
    fill(tmp_path / "a.db.new", chain_of(3))
    Store.open(tmp_path / "a.db").close()
    assert height_of_tip(tmp_path / "a.db.new") == "2"


def test_a_store_of_two_names_is_not_written(filled: Path) -> None:
    filled.with_name("second").hardlink_to(filled)
    assert "hard link" in refusal(filled, StoreError)
    with Store.open(filled, read_only=True) as store:
        assert store.chains()


@pytest.mark.parametrize("name", ["nul\0nul", "surrogate\ud800"])
def test_what_is_no_path_is_said(tmp_path: Path, name: str) -> None:
    assert "is not a path" in refusal(tmp_path / name, StoreError)
