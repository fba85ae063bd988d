"""A consumer that reads on from any cursor, in pages of any size, is told each event once; also where old events were deleted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervm_rt.chain.cursor import Sealer
from supervm_rt.errors import CursorTooOld
from supervm_rt.model.chain import Step
from supervm_rt.store import BlockState, FinalInput, Store, digest
from supervm_rt.store.feed.events import Request, Transactions
from supervm_rt.store.feed.reader import FeedReader
from supervm_rt.store.feed.retention import SWEPT_AT_ONCE, Kept, Retention, Sweeper, find_horizons, move_horizon, sweep
from supervm_rt.store.queries import ChainReader
from supervm_rt.store.schema import StateCode
from tests.feed.killed import inputs_of
from tests.feed.support import Drawn, Rebuilt, busy_inputs, consumer, drawn_trees, log_of, read_all, told
from tests.store.support import CHAIN, HEAVIEST, PLUGIN, block, chain_of, dev_mirror, fill, line
from tests.store.test_reading_beside import counted

RULES = replace(HEAVIEST, final_depth=6)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forks, reorgs and finality."""
    path = tmp_path_factory.mktemp("mixed") / "chain.store"
    fill(path, busy_inputs(7, 400), RULES)
    return path


def prune(store: Store, *, keep: int, undone: int | None = None, sweeping: bool = True, now: float = 4e9) -> None:
    """Deletes all that may be deleted, but the last events; those of undone blocks only where they are no more among so many."""
    retention = Retention(Kept(0, keep), None if undone is None else Kept(0, undone))
    for horizon in find_horizons(store, retention, now):
        move_horizon(store, horizon)
    if sweeping:
        sweep_all(store, retention, now)


def sweep_all(store: Store, retention: Retention, now: float) -> int:
    """How many events it deletes."""
    sweeper, count = Sweeper(retention), 0
    while found := sweeper.find(store, now, 7):
        assert len(found) <= 7
        sweep(store, found)
        count += len(found)
    return count


def test_from_the_beginning_the_whole_log_is_told(mixed: Path) -> None:
    with Store.open(mixed, read_only=True) as store:
        for limit in (1, 2, 7, 256):
            events = read_all(consumer(store), store, limit)
            assert told(events) == log_of(store)
        rebuilt = Rebuilt()
        rebuilt.apply(events)
        rebuilt.assert_equals(store)
        assert {event.step for event in events} == set(Step)
        assert all(event.committed for event in events)


def test_every_cursor_goes_on_with_the_next_event(mixed: Path) -> None:
    with Store.open(mixed, read_only=True) as store:
        log = log_of(store)
        events = read_all(consumer(store), store)
        for number, event in enumerate(events, start=1):
            reader = consumer(store, event.cursor)
            assert told(reader.read(store, 3).events) == log[number : number + 3]
            assert told(read_all(reader, store)) == log[number + 3 :]


def test_from_a_height_the_blocks_from_there_on_are_told(mixed: Path) -> None:
    with Store.open(mixed, read_only=True) as store:
        tip = store.chain(CHAIN).tip()
        assert tip is not None
        for height in range(tip.height + 3):
            rebuilt = Rebuilt(floor=height)
            reader = consumer(store, start=height)
            while True:
                page = reader.read(store, 2)
                assert all(event.block.height >= height for event in page.events)
                rebuilt.apply(page.events)
                if page.exhausted:
                    break
                reader = consumer(store, reader.cursor)
            rebuilt.assert_equals(store)


def test_now_is_behind_the_last_event(tmp_path: Path) -> None:
    path = tmp_path / "chain.store"
    with Store.open(path) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, chain_of(4))
        reader = consumer(store, start="now")
        assert read_all(reader, store) == []
        again = consumer(store, reader.cursor)
        mirror.apply(PLUGIN, line("n1 n2", "b3", 4))
        assert [event.block.hash for event in read_all(reader, store)] == [b"n1", b"n2"]
        assert [event.block.hash for event in read_all(again, store)] == [b"n1", b"n2"]


def test_several_chains_come_in_the_order_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "chain.store"
    with Store.open(path) as store:
        mirrors = [dev_mirror(store, RULES, name) for name in ("one", "two", "other")]
        inputs = busy_inputs(3, 90)
        for at in range(0, len(inputs), 5):
            for mirror in mirrors:
                mirror.apply(PLUGIN, inputs[at : at + 5])
        expected = [event for event in store.events(limit=100_000) if event.chain != "other"]
        reader = consumer(store, chains=("one", "two"))
        events = read_all(reader, store, 4)
        assert [(event.chain, event.sequence) for event in events] == [(event.chain, event.sequence) for event in expected]
        for number, event in enumerate(events, start=1):
            again = consumer(store, event.cursor, chains=("two", "one"))
            assert told(again.read(store, 2).events) == told(events[number : number + 2])


class TestDeletedEvents:
    """Where the oldest were deleted."""

    def test_a_new_consumer_still_learns_the_chain(self, tmp_path: Path) -> None:
        path = tmp_path / "chain.store"
        fill(path, busy_inputs(7, 400), RULES)
        with Store.open(path) as store:
            complete, whole = len(log_of(store)), digest(store, CHAIN).hex
            prune(store, keep=40)
            assert 40 <= len(log_of(store)) < complete / 2
            assert digest(store, CHAIN).hex != whole
            tip = store.chain(CHAIN).tip()
            assert tip is not None
            for limit in (1, 2, 50):
                for height in ("beginning", *range(0, tip.height + 3, 13)):
                    rebuilt = Rebuilt(floor=height if isinstance(height, int) else 0)
                    reader = consumer(store, start=height)
                    while True:
                        page = reader.read(store, limit)
                        for event in page.events:
                            rebuilt.apply([event])
                        if page.exhausted:
                            break
                        reader = consumer(store, page.events[-1].cursor if page.events else reader.cursor)
                    rebuilt.assert_equals(store)

    def test_cursors_are_refused_where_the_next_event_is_gone_and_only_there(self, tmp_path: Path) -> None:
        path = tmp_path / "chain.store"
        fill(path, busy_inputs(7, 400), RULES)
        with Store.open(path) as store:
            events = read_all(consumer(store), store)
            for keep in (200, 40):
                for sweeping in (False, True):
                    prune(store, keep=keep, sweeping=sweeping)
                    with store.snapshot() as connection:
                        (horizon,) = connection.execute("SELECT sequence FROM horizons").fetchone()
                    assert horizon <= len(events) - keep
                    for number, event in enumerate(events, start=1):
                        reader = consumer(store, event.cursor)
                        if number < horizon and not sweeping:
                            continue  # one at an undone block goes on until the events that tell so are deleted
                        if number < horizon:
                            with pytest.raises(CursorTooOld, match="oldest cursor that works") as caught:
                                reader.read(store)
                            oldest = consumer(store, caught.value.oldest)
                            assert told(read_all(oldest, store)) == told(events[horizon:])
                        else:
                            assert told(read_all(reader, store)) == told(events[number:])

    @pytest.mark.parametrize(("seed", "keep", "undone"), [(7, 25, 120), (8, 10, 2000), (10, 40, 40), (11, 5, 150)])
    def test_cursors_work_for_as_long_as_promised(self, tmp_path: Path, seed: int, keep: int, undone: int) -> None:
        """Those at a block that was undone since for longer than the others; and none is told anything wrong, promised or not."""
        path = tmp_path / "chain.store"
        fill(path, busy_inputs(seed, 240), RULES)
        with Store.open(path) as store:
            events = read_all(consumer(store), store)
            chain = store.chain(CHAIN)
            settled = chain.final()
            assert settled is not None
            found = {"kept": 0, "undone": 0, "refused": 0}
            states = [Rebuilt() for _ in events]
            for number, event in enumerate(events):
                before = states[number - 1] if number else Rebuilt()
                states[number].blocks, states[number].final = list(before.blocks), before.final
                states[number].apply([event])
            for at, swept in ((2, 0), (2, 1), (1, 1)):
                prune(store, keep=keep * at, undone=undone * at, sweeping=bool(swept))
                for number, (event, rebuilt) in enumerate(zip(events, states, strict=True), start=1):
                    known = Rebuilt()
                    known.blocks, known.final = list(rebuilt.blocks), rebuilt.final
                    left = any(not _stands(chain, hash_) for hash_, _ in known.blocks)
                    promised = number >= len(events) - (undone * at if left else keep * at)
                    limit, cursor = 1 + number % 3, event.cursor
                    try:
                        while True:
                            page = consumer(store, cursor).read(store, limit)
                            known.apply(page.events)
                            cursor = page.events[-1].cursor if page.events else cursor
                            if page.exhausted:
                                break
                    except CursorTooOld:
                        assert not promised
                        found["refused"] += 1
                        continue
                    known.assert_equals(store)
                    found["undone" if left and number < len(events) - keep * at else "kept"] += 1
            assert found["kept"] > 0
            assert found["refused"] > 0
            assert found["undone"] > 0 or undone == keep
            with store.snapshot() as connection:
                (horizon,) = connection.execute("SELECT sequence FROM horizons").fetchone()
                rows = connection.execute(
                    "SELECT e.sequence, b.state FROM events e JOIN blocks b ON b.id = e.block WHERE e.sequence <= ?", (horizon,)
                ).fetchall()
            assert all(state == StateCode.CUT and sequence > len(events) - undone - 30 for sequence, state in rows)
            anew = Rebuilt()
            anew.apply(read_all(consumer(store), store, 3))
            anew.assert_equals(store)
            for height in range(0, settled.height + 8, 5):
                rebuilt = Rebuilt(floor=height)
                rebuilt.apply(read_all(consumer(store, start=height), store, 3))
                rebuilt.assert_equals(store)

    def test_a_consumer_of_two_chains_comes_back_to_an_undone_block(self, tmp_path: Path) -> None:
        names = ("one", "two")
        with Store.open(tmp_path / "chain.store") as store:
            mirrors = [dev_mirror(store, RULES, name) for name in names]
            inputs = [busy_inputs(seed, 150) for seed in (3, 4)]
            for at in range(0, 150, 3):
                for mirror, theirs in zip(mirrors, inputs, strict=True):
                    mirror.apply(PLUGIN, theirs[at : at + 3])
            events = read_all(consumer(store, chains=names), store)
            prune(store, keep=60, undone=10_000)
            with store.snapshot() as connection:
                (horizon,) = connection.execute("SELECT min(sequence) FROM horizons").fetchone()
            states = {name: Rebuilt() for name in names}
            back = 0
            for number, event in enumerate(events, start=1):
                states[event.chain].apply([event])
                known = {name: Rebuilt() for name in names}
                for name in names:
                    known[name].blocks, known[name].final = list(states[name].blocks), states[name].final
                try:
                    page = consumer(store, event.cursor, chains=names).read(store, 1 + number % 4)
                    further = page.events + read_all(
                        consumer(store, page.events[-1].cursor if page.events else event.cursor, chains=names), store, 5
                    )
                except CursorTooOld:
                    continue
                back += number < horizon
                for one in further:
                    known[one.chain].apply([one])
                for name in names:
                    known[name].assert_equals(store, name)
            assert back > 0

    def test_a_consumer_that_begins_slowly_goes_on_however_far_the_deleting_has_come(self, tmp_path: Path) -> None:
        path = tmp_path / "chain.store"
        with Store.open(path) as store:
            mirror = dev_mirror(store, RULES)
            inputs = busy_inputs(11, 400)
            mirror.apply(PLUGIN, inputs[:100])
            prune(store, keep=10)
            rebuilt = Rebuilt()
            cursor = None
            for at in range(100, len(inputs), 4):
                mirror.apply(PLUGIN, inputs[at : at + 4])
                prune(store, keep=10)
                page = consumer(store, cursor).read(store, 3)
                rebuilt.apply(page.events)
                cursor = page.events[-1].cursor
            rebuilt.apply(read_all(consumer(store, cursor), store))
            rebuilt.assert_equals(store)

    def test_a_consumer_that_begins_slowly_while_the_horizon_comes_to_lie_lower(self, tmp_path: Path) -> None:
        """The chain fell below what the consumer was told already, and rose again to the same blocks."""
        with Store.open(tmp_path / "chain.store") as store:
            rival, last = block("c5", "b4", 5, weight=10), block("b11", "b10", 11, weight=20)
            dev_mirror(store).apply(PLUGIN, [*chain_of(11), rival, last, FinalInput(b"b11", 11)])
            log = log_of(store)
            first = max(sequence for sequence, step, hash_ in log if hash_ == b"b10" and step is Step.NEW and sequence < 12)
            second = max(sequence for sequence, step, hash_ in log if hash_ == b"b6" and step is Step.NEW)
            assert first < second
            for told_first in range(1, 12):
                prune(store, keep=len(log) - first, sweeping=False)
                rebuilt = Rebuilt()
                slow = consumer(store)
                rebuilt.apply(slow.read(store, 2 * told_first).events)
                prune(store, keep=len(log) - second, sweeping=False)
                rebuilt.apply(read_all(consumer(store, slow.cursor), store, 3))
                rebuilt.assert_equals(store)
                with store.transaction() as connection:
                    connection.execute("DELETE FROM horizons")

    def test_nothing_goes_while_nothing_is_final(self, tmp_path: Path) -> None:
        path = tmp_path / "chain.store"
        fill(path, chain_of(50))
        with Store.open(path) as store:
            prune(store, keep=0)
            assert len(log_of(store)) == 50
            dev_mirror(store).apply(PLUGIN, [FinalInput(b"b20", 20)])
            prune(store, keep=0)
            assert len(log_of(store)) == 50 - 21 + 21
            rebuilt = Rebuilt()
            rebuilt.apply(read_all(consumer(store), store))
            rebuilt.assert_equals(store)

    def test_age_keeps_what_is_younger(self, tmp_path: Path) -> None:
        path = tmp_path / "chain.store"
        with Store.open(path) as store:
            mirror = dev_mirror(store, replace(HEAVIEST, final_depth=0))
            mirror.apply(PLUGIN, chain_of(20))
            with store.transaction() as connection:
                connection.execute("UPDATE commits SET time = 1000")
            mirror.apply(PLUGIN, chain_of(30)[20:])
            before = log_of(store)
            retention = Retention(Kept(100, 0))
            for now, deletes in ((1050e-9, False), (5000, True)):
                for horizon in find_horizons(store, retention, now):
                    move_horizon(store, horizon)
                assert bool(sweep_all(store, retention, now)) == deletes
            assert log_of(store) == before[39:]


def _stands(chain: ChainReader, hash_: bytes) -> bool:
    """Whether a block was not undone for ever."""
    found = chain.block_by_hash(hash_)
    assert found is not None
    return found.state in {BlockState.CANONICAL, BlockState.FINAL}


@settings(max_examples=40)
@given(tree=drawn_trees(120), depth=st.sampled_from([None, 2, 5]), data=st.data())
def test_a_thousand_stops_in_random_trees(
    tmp_path_factory: pytest.TempPathFactory, tree: Drawn, depth: int | None, data: st.DataObject
) -> None:
    """Consumers that stop anywhere and go on from their cursor, while the tree grows and old events go."""
    path = tmp_path_factory.mktemp("random") / "chain.store"
    inputs = tree.inputs(120)
    counts, fifths, keeps, limits = st.integers(1, 12), st.integers(0, 4), st.sampled_from([5, 20, 100]), st.integers(0, 9)
    with Store.open(path, durable=False) as store:
        mirror = dev_mirror(store, replace(HEAVIEST, final_depth=depth))
        known: list[tuple[Rebuilt, str | None]] = [(Rebuilt(), None) for _ in range(3)]
        done = 0
        while done < len(inputs):
            count = data.draw(counts)
            mirror.apply(PLUGIN, inputs[done : done + count])
            done += count
            if data.draw(fifths) == 4:
                keep = data.draw(keeps)
                undone = data.draw(st.sampled_from([None, keep, 2 * keep, 400]))
                prune(store, keep=keep, undone=undone, sweeping=data.draw(st.booleans()))
            for number, (rebuilt, cursor) in enumerate(known):
                limit = data.draw(limits)
                if limit == 0:
                    continue
                try:
                    page = consumer(store, cursor).read(store, limit)
                except CursorTooOld:
                    known[number] = (Rebuilt(), None)
                    continue
                stop = data.draw(st.integers(0, len(page.events)))
                rebuilt.apply(page.events[:stop])
                known[number] = (rebuilt, page.events[stop - 1].cursor if stop else cursor)
        for rebuilt, cursor in known:
            try:
                rebuilt.apply(read_all(consumer(store, cursor), store))
                rebuilt.assert_equals(store)
            except CursorTooOld:
                anew = Rebuilt()
                anew.apply(read_all(consumer(store), store))
                anew.assert_equals(store)


@pytest.mark.parametrize("kept", [Kept(1e12, 0), Kept(float("inf"), 0), Kept(0, 10**30)])
def test_a_length_longer_than_any_history_keeps_all(tmp_path: Path, kept: Kept) -> None:
    fill(tmp_path / "chain.store", chain_of(50), RULES)
    with Store.open(tmp_path / "chain.store") as store:
        assert find_horizons(store, Retention(kept), now=1.7e9) == []
        prune(store, keep=0)


def test_deleting_takes_as_long_for_a_long_chain_as_for_a_short_one(tmp_path: Path) -> None:
    """What the mirror waits for: the transactions that write. Counted in SQLite's instructions."""

    def work(length: int) -> dict[str, int]:
        path = tmp_path / f"{length}.store"
        fill(path, chain_of(length), RULES)
        with Store.open(path) as store, Store.open(path, read_only=True) as reader:
            (horizon,) = find_horizons(reader, Retention(Kept(0, 0)), now=4e9)
            moved = counted(store, lambda: move_horizon(store, horizon))
            sweeper, found = Sweeper(Retention(Kept(0, 0), Kept(0, 0))), list[int]()
            looked = counted(reader, lambda: found.extend(sweeper.find(reader, now=4e9)))
            assert len(found) == SWEPT_AT_ONCE
            return {"horizon": moved, "find": looked, "sweep": counted(store, lambda: sweep(store, found))}

    short, long = work(400), work(4000)
    assert abs(long["horizon"] - short["horizon"]) <= 10
    assert long["sweep"] <= short["sweep"] * 1.1
    assert long["find"] <= short["find"] * 1.1


def test_deleting_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "chain.store"
    fill(path, chain_of(1500), RULES)
    retention = Retention(Kept(0, 10))
    with Store.open(path) as store:
        (horizon,) = find_horizons(store, retention, now=4e9)
        move_horizon(store, horizon)
        found = Sweeper(retention).find(store, now=4e9)
        assert len(found) == SWEPT_AT_ONCE
        sweep(store, found)
    with Store.open(path) as store:
        events = read_all(consumer(store), store)
        assert [event.block.hash for event in events if event.step is Step.NEW] == [b"b%d" % number for number in range(1500)]
        assert find_horizons(store, retention, now=4e9) == []
        sweep_all(store, retention, now=4e9)
        assert log_of(store)[0][0] == horizon.sequence + 1
        again = Rebuilt()
        again.apply(read_all(consumer(store), store))
        again.assert_equals(store)
        move_horizon(store, horizon._replace(sequence=3))
        assert read_all(consumer(store), store)[-1].sequence == events[-1].sequence


def test_a_consumer_with_a_filter_goes_on_with_any_handle(tmp_path: Path) -> None:
    """A feed reads pages through whichever of its connections is free."""
    path = tmp_path / "chain.store"
    translator, inputs = inputs_of("sample", 0)
    assert translator is not None
    with Store.open(path) as store:
        store.mirror(CHAIN, translator=translator, rules=RULES).apply(PLUGIN, inputs)
        key = store.cursor_key()
        chain = store.chain(CHAIN)
        tip = chain.tip()
        assert tip is not None
        blocks = [chain.block_at(height) for height in range(tip.height)]
        transactions = [one for block in blocks if block is not None for one in chain.decoded(block).transactions]
        outputs = {(one.id, place): output.script for one in transactions for place, output in enumerate(one.outputs)}
        # One that nobody pays to in the block that spends from it: the spent output has to be looked up.
        spent = {
            outputs[input_.previous_id, input_.previous_index]
            for one in transactions[-20:]
            for input_ in one.inputs[:1]
            if not one.coinbase
        }

    def found(*, one_handle: bool) -> list[bytes]:
        reader = FeedReader(Sealer(key), Request((CHAIN,), transactions=Transactions(scripts=tuple(spent))))
        ids: list[bytes] = []
        store = Store.open(path, read_only=True)
        while True:
            page = reader.read(store, 50)
            ids += [transaction.id for event in page.events for transaction in event.transactions or ()]
            if page.exhausted:
                store.close()
                return ids
            if not one_handle:
                store.close()
                store = Store.open(path, read_only=True)

    assert found(one_handle=False) == found(one_handle=True) != []
