"""Readers beside a writer see whole batches; the log stays bounded; work does not grow with the chain."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from supervm_rt.chain.types import ForkRules
from supervm_rt.errors import NotInStore
from supervm_rt.model.chain import ForkMode
from supervm_rt.store import FinalInput, Input, Store, database, digest
from tests.store.support import CHAIN, HEAVIEST, PLUGIN, chain_of, dev_mirror, fill, line


def test_a_reader_sees_whole_batches_while_a_writer_writes(tmp_path: Path) -> None:
    path = tmp_path / "chain.store"
    inputs, size = chain_of(1500), 30
    fill(path, inputs[:size])
    written = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with Store.open(path, durable=False) as store:
                mirror = dev_mirror(store)
                for start in range(size, len(inputs), size):
                    mirror.apply(PLUGIN, inputs[start : start + size])
        except BaseException as error:
            failures.append(error)
        finally:
            written.set()

    seen = set()
    with Store.open(path, read_only=True) as store:
        reader = store.chain(CHAIN)
        writer = threading.Thread(target=write)
        writer.start()
        while True:
            last_round = written.is_set()
            with store.snapshot():
                counts, tip, position = reader.statistics(), reader.tip(), reader.position(PLUGIN)
                assert tip is not None
                assert position == tip.hash == b"b%d" % tip.height
                assert len(reader.events(limit=5000)) == counts.events == counts.blocks == tip.height + 1
                assert reader.raw(reader.find_block(str(tip.height)))
            assert counts.blocks % size == 0
            seen.add(counts.blocks)
            if last_round:
                break
        writer.join()
    assert not failures
    assert max(seen) == len(inputs)


def test_a_digest_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "chain.store"
    inputs = chain_of(600)
    fill(path, inputs[:550])
    with Store.open(path) as store, Store.open(path, read_only=True) as beside:
        mirror = dev_mirror(store)
        before = digest(beside, CHAIN)
        told: list[tuple[int, int]] = []

        def write_more(done: int, total: int) -> None:
            if not told:
                mirror.apply(PLUGIN, [*inputs[550:], FinalInput(b"b500", 500)])
            told.append((done, total))

        assert digest(beside, CHAIN, write_more) == before
        assert told
        assert digest(beside, CHAIN).blocks == 600


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LOG_BYTES", 1 << 20)
    path = tmp_path / "chain.store"
    log = tmp_path / "chain.store-wal"
    highest = 0
    inputs = chain_of(600, size=20_000)
    with Store.open(path) as store, Store.open(path, read_only=True) as beside:
        mirror = dev_mirror(store)
        for start in range(0, 600, 10):
            mirror.apply(PLUGIN, inputs[start : start + 10])
            highest = max(highest, log.stat().st_size)
            assert beside.chain(CHAIN).tip() == mirror.tip
    assert path.stat().st_size > 12_000_000
    assert highest < 3 << 20


def counted(store: Store, action: Callable[[], object]) -> int:
    """How many virtual instructions SQLite executes for the action, to within ten for each statement."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    store._connection.set_progress_handler(step, 10)
    action()
    store._connection.set_progress_handler(None, 10)
    return steps


RULES = ForkRules(ForkMode.HEAVIEST, final_depth=10, orphan_limit=50)


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A chain of 300 blocks and one of 6,000, each with ten that are not final."""
    folder = tmp_path_factory.mktemp("lengths")
    paths = [folder / "short", folder / "long"]
    for path, length in zip(paths, (300, 6000), strict=True):
        fill(path, [*chain_of(length), *line("waits", "nowhere", 3)], RULES)
    return paths


def test_work_does_not_grow_with_the_chain(lengths: list[Path]) -> None:
    def work(path: Path) -> dict[str, int]:
        with Store.open(path) as store:
            length = store.chain(CHAIN).statistics().canonical
            tip = f"b{length - 1}"
            fresh: list[Input] = line(f"n1 n2 n3 n4 {path.name}", tip, length)
            reader = store.chain(CHAIN)
            found = reader.find_block("200")
            return {
                "open": counted(store, lambda: dev_mirror(store, RULES)),
                "blocks": counted(store, lambda: dev_mirror(store, RULES).apply(PLUGIN, fresh)),
                "old": counted(store, lambda: dev_mirror(store, RULES).apply(PLUGIN, [chain_of(3)[2], *line("o", "b1", 2)])),
                "final": counted(store, lambda: dev_mirror(store, RULES).apply(PLUGIN, [FinalInput(b"n2", length + 1)])),
                "tip": counted(store, reader.tip),
                "block": counted(store, lambda: reader.find_block("150")),
                "hash": counted(store, lambda: reader.block_by_hash(b"b150")),
                "raw": counted(store, lambda: reader.raw(found)),
                "events": counted(store, lambda: reader.events(after=200, limit=20)),
                "statistics": counted(store, reader.statistics),
                "position": counted(store, lambda: reader.position(PLUGIN)),
            }

    short, long = map(work, lengths)
    assert all(abs(long[name] - short[name]) <= 5 + short[name] // 10 for name in short), (short, long)


def test_a_mirror_remembers_the_window_and_the_orphans_only(lengths: list[Path]) -> None:
    for path in lengths:
        with Store.open(path) as store:
            mirror = dev_mirror(store, replace(RULES))
            statistics = mirror.statistics()
            assert len(mirror._places) == statistics.window + statistics.orphans < 20


def test_the_memory_of_a_long_run_stays_with_the_window(tmp_path: Path) -> None:
    with Store.open(tmp_path / "chain.store", durable=False) as store:
        mirror = dev_mirror(store, replace(HEAVIEST, final_depth=3))
        inputs = chain_of(2000)
        for start in range(0, 2000, 100):
            mirror.apply(PLUGIN, [*inputs[start : start + 100], *line(f"s{start}", f"b{start + 96}", start + 97)])
            assert len(mirror._places) == mirror.statistics().window <= 6


def test_files_are_closed_with_the_store(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    path = tmp_path / "chain.store"
    fill(path, chain_of(3))
    before = descriptors()
    for _ in range(5):
        with Store.open(path) as store, Store.open(path, read_only=True) as beside:
            dev_mirror(store)
            assert beside.chain(CHAIN).tip() is not None
        path.with_name("other").write_bytes(b"not a store")
        with pytest.raises(Exception, match="not a"):
            Store.open(path.with_name("other"))
    assert descriptors() == before


def test_a_transaction_is_looked_up_by_seeking_in_each_section(lengths: list[Path]) -> None:
    def work(path: Path) -> int:
        with Store.open(path, read_only=True) as store:
            reader = store.chain(CHAIN)

            def look_up() -> None:
                with pytest.raises(NotInStore):
                    reader.transaction(bytes(32))

            return counted(store, look_up)

    short, long = map(work, lengths)
    assert abs(long - short) <= 5
