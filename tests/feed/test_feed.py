"""Subscriptions: live events wake them, slow ones cost nothing, wrong ones are refused at once."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from supervm_rt import PluginConfig, PolicyLevel, RuntimeConfig, open_runtime
from supervm_rt.errors import (
    ConfigurationError,
    CursorForged,
    CursorMalformed,
    CursorOfAnotherChain,
    CursorOfAnotherStore,
    CursorTooOld,
    CursorUnknown,
    NotInStore,
    StoreError,
)
from supervm_rt.model.chain import Step
from supervm_rt.store import Store
from supervm_rt.store.feed import Feed, Kept, Last, Retention, Subscription, bell, open_feed
from supervm_rt.store.feed.reader import PAGE_EVENTS, FeedReader, Page
from supervm_rt.store.feed.tail import TAIL_EVENTS
from tests.cli.support import BLOCKFILES, SAMPLE_BLOCKS
from tests.feed.support import Rebuilt, busy_inputs, log_of, told
from tests.feed.test_reader import prune
from tests.store.support import CHAIN, HEAVIEST, PLUGIN, chain_of, dev_mirror, environment, fill, line

RULES = replace(HEAVIEST, final_depth=6)


def run(test: Callable[[], Awaitable[None]], seconds: float = 60) -> None:
    async def limited() -> None:
        with trio.fail_after(seconds):
            await test()

    trio.run(limited)


async def take(subscription: Subscription, count: int) -> list[bytes]:
    return [(await anext(subscription)).block.hash for _ in range(count)]


async def all_of(subscription: Subscription) -> list[tuple[int | None, Step, bytes]]:
    return told([event async for event in subscription])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chain.store"


def test_what_is_there_is_told_and_then_it_ends(path: Path) -> None:
    fill(path, busy_inputs(1, 900), RULES)

    async def test() -> None:
        async with open_feed(path) as feed:
            with Store.open(path, read_only=True) as store:
                assert await all_of(feed.subscribe(CHAIN, follow=False)) == log_of(store)
                finals = await all_of(feed.subscribe(CHAIN, follow=False, steps=[Step.FINAL]))
                assert finals == [one for one in log_of(store) if one[1] is Step.FINAL]

    run(test)


def test_a_commit_of_another_handle_wakes_a_waiting_consumer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without looking: the slow look is out of the way."""
    monkeypatch.setattr(bell, "LOOK_EVERY", 3600.0)
    with Store.open(path) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, chain_of(3))

        async def test() -> None:
            async with open_feed(path) as feed:
                subscription = feed.subscribe(CHAIN)
                bodies = feed.subscribe(CHAIN, raw=True)
                assert await take(subscription, 3) == await take(bodies, 3) == [b"b0", b"b1", b"b2"]
                for number in range(3, 30):
                    async with trio.open_nursery() as nursery:
                        got: list[bytes] = []

                        async def one(consumer: Subscription, got: list[bytes] = got) -> None:
                            got.extend(await take(consumer, 1))

                        nursery.start_soon(one, subscription)
                        nursery.start_soon(one, bodies)
                        await trio.testing.wait_all_tasks_blocked(0.01)
                        await trio.to_thread.run_sync(mirror.apply, PLUGIN, chain_of(number + 1)[number:])
                    assert got == [b"b%d" % number] * 2

        run(test)


def test_a_store_whose_lock_file_was_deleted_is_still_heard(path: Path) -> None:
    fill(path, chain_of(2))
    path.with_name(path.name + ".lock").unlink()

    async def test() -> None:
        async with open_feed(path) as feed:
            subscription = feed.subscribe(CHAIN)
            assert await take(subscription, 2) == [b"b0", b"b1"]
            with Store.open(path) as store:
                dev_mirror(store).apply(PLUGIN, chain_of(3)[2:])
                assert await take(subscription, 1) == [b"b2"]

    run(test)


def test_without_inotify_the_store_is_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(24, "too many")

    monkeypatch.setattr(bell, "INotify", none_left)
    monkeypatch.setattr(bell, "LOOK_EVERY", 0.01)
    with Store.open(path) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, chain_of(1))

        async def test() -> None:
            async with open_feed(path) as feed:
                subscription = feed.subscribe(CHAIN)
                assert await take(subscription, 1) == [b"b0"]
                mirror.apply(PLUGIN, chain_of(2)[1:])
                assert await take(subscription, 1) == [b"b1"]

        run(test)


def test_another_process_is_heard(path: Path) -> None:
    fill(path, busy_inputs(5, 3), RULES)
    script = (
        "import sys; from dataclasses import replace; from supervm_rt.store import Store;"
        "from tests.store.support import *; from tests.feed.support import busy_inputs;"
        "store = Store.open(sys.argv[1]); mirror = dev_mirror(store, replace(HEAVIEST, final_depth=6));"
        "inputs = busy_inputs(5, 600);"
        "[mirror.apply(PLUGIN, inputs[at:at + 7]) for at in range(3, 600, 7)]"
    )

    async def test() -> None:
        rebuilt = Rebuilt()
        async with open_feed(path) as feed:
            subscription = feed.subscribe(CHAIN)
            process = await trio.lowlevel.open_process([sys.executable, "-c", script, str(path)], env=environment())

            async def consume() -> None:
                async for event in subscription:
                    rebuilt.apply([event])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(consume)
                assert await process.wait() == 0
                with Store.open(path, read_only=True) as store:
                    while rebuilt.events < len(log_of(store)):
                        await trio.sleep(0.005)
                    rebuilt.assert_equals(store)
                nursery.cancel_scope.cancel()

    run(test)


def test_many_consumers_each_learn_all(path: Path) -> None:
    """Some come late, some stop and go on with their cursor; more events than the shared tail holds."""
    inputs = busy_inputs(9, 3 * TAIL_EVENTS)
    with Store.open(path, durable=False) as store:
        mirror = dev_mirror(store, RULES)
        mirror.apply(PLUGIN, inputs[:1])

        async def consumer(feed: Feed, rebuilt: Rebuilt, every: int) -> None:
            cursor = None
            while True:
                subscription = feed.subscribe(CHAIN, cursor=cursor)
                for _ in range(every):
                    event = await anext(subscription)
                    rebuilt.apply([event])
                    cursor = event.cursor if rebuilt.events % every == 0 else cursor
                assert event.cursor == subscription.cursor == cursor

        async def test() -> None:
            consumers = [Rebuilt() for _ in range(8)]
            async with open_feed(path) as feed, trio.open_nursery() as nursery:
                for number, rebuilt in enumerate(consumers):
                    nursery.start_soon(consumer, feed, rebuilt, 1 + 97 * number)
                for at in range(1, len(inputs), 300):
                    await trio.to_thread.run_sync(mirror.apply, PLUGIN, inputs[at : at + 300])
                total = len(log_of(store))
                while any(rebuilt.events < total for rebuilt in consumers):
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            for rebuilt in consumers:
                rebuilt.assert_equals(store)

        run(test)


def test_a_consumer_that_does_not_come_back_holds_one_page(path: Path) -> None:
    with Store.open(path, durable=False) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, chain_of(2000))

        async def test() -> None:
            async with open_feed(path) as feed:
                stuck = feed.subscribe(CHAIN)
                assert await take(stuck, 1) == [b"b0"]
                await trio.to_thread.run_sync(mirror.apply, PLUGIN, line("c", "b1999", 2000))
                await take(feed.subscribe(CHAIN), 2001)
                with trio.fail_after(20):
                    while stuck.statistics().lag_events < 2000:  # as of the feed's last look, which a ring brings about
                        await trio.sleep(0.001)
                statistics = stuck.statistics()
                assert (statistics.told, statistics.buffered) == (1, PAGE_EVENTS - 1)
                assert statistics.lag_events == 2000
                assert 0 < statistics.lag_seconds < 60
                up = feed.subscribe(CHAIN, start="now")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(take, up, 1)
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    assert up.statistics() == replace(up.statistics(), told=0, buffered=0, lag_events=0, lag_seconds=0.0)
                    nursery.cancel_scope.cancel()
                assert len(stuck._page) <= PAGE_EVENTS

        run(test)


def test_a_consumer_that_never_waits_is_told_of_commits_too(path: Path) -> None:
    """In a node's process nothing is read ahead for nobody: it reads by itself."""
    with Store.open(path) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, chain_of(3))

        async def test() -> None:
            feed = Feed.at(path, told=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed.run)
                polling = feed.subscribe(CHAIN)
                assert [event.block.hash for event in await polling.batch(wait=False)] == [b"b0", b"b1", b"b2"]
                for height in range(3, 9):
                    assert await polling.batch(wait=False) == []
                    await trio.to_thread.run_sync(mirror.apply, PLUGIN, chain_of(height + 1)[height:])
                    feed.ring(1)
                    assert [event.block.height for event in await polling.batch(wait=False)] == [height]
                nursery.cancel_scope.cancel()

        run(test)


@pytest.mark.parametrize("first", ["new", "old"])
def test_consumers_that_share_a_page_keep_their_own_cursors(path: Path, first: str) -> None:
    """What both are told of another chain's commit is nothing: neither is moved to where the other one began."""
    with Store.open(path) as store:
        mirror, other = dev_mirror(store), dev_mirror(store, HEAVIEST, "second")
        mirror.apply(PLUGIN, chain_of(3))

        async def test() -> None:
            async with open_feed(path) as feed, trio.open_nursery() as nursery:
                new, old = feed.subscribe(CHAIN, start="now"), feed.subscribe(CHAIN)
                assert await take(old, 3) == [b"b0", b"b1", b"b2"]
                for subscription in (new, old) if first == "new" else (old, new):
                    nursery.start_soon(take, subscription, 1)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                cursor = old.cursor
                for count in (1, 2, 3):
                    await trio.to_thread.run_sync(other.apply, PLUGIN, chain_of(count)[count - 1 :])
                    await trio.testing.wait_all_tasks_blocked(0.05)
                assert await all_of(feed.subscribe(CHAIN, cursor=cursor, follow=False)) == []
                assert await all_of(feed.subscribe(CHAIN, cursor=old.cursor, follow=False)) == []
                nursery.cancel_scope.cancel()

        run(test)


def test_while_a_page_is_read_the_cursor_is_behind_what_was_given(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another task, which keeps it now and then: what is read at that moment was not given yet."""
    read, go_on = threading.Event(), threading.Event()
    real = FeedReader.read

    def slow(reader: FeedReader, store: Store) -> Page:
        page = real(reader, store)
        read.set()
        assert go_on.wait(60)
        return page

    fill(path, chain_of(4))

    async def test() -> None:
        async with open_feed(path) as feed, trio.open_nursery() as nursery:
            for start, given in (("beginning", []), ("cursor", [b"b0", b"b1"])):
                cursor = None
                if start == "cursor":
                    first = feed.subscribe(CHAIN, raw=True)
                    assert await take(first, 2) == given
                    cursor = first.cursor
                subscription = feed.subscribe(CHAIN, raw=True, cursor=cursor)
                with monkeypatch.context() as patch:
                    patch.setattr(FeedReader, "read", slow)
                    nursery.start_soon(take, subscription, 1)
                    await trio.to_thread.run_sync(read.wait, 60)
                    kept = subscription.cursor
                    go_on.set()
                    await trio.testing.wait_all_tasks_blocked(0.01)
                assert kept == cursor
                read.clear()
                go_on.clear()

    run(test)


def test_the_last_events(path: Path) -> None:
    fill(path, busy_inputs(2, 100), RULES)

    async def test() -> None:
        async with open_feed(path) as feed:
            with Store.open(path, read_only=True) as store:
                log = log_of(store)
            for count in (0, 1, 10, len(log), len(log) + 5):
                assert await all_of(feed.subscribe(CHAIN, start=Last(count), follow=False)) == log[max(0, len(log) - count) :]

    run(test)


def test_the_last_events_of_several_chains(path: Path) -> None:
    """Of all of them together, in the store's order; also where the old ones of one were deleted."""
    names = ("one", "two", "three")
    with Store.open(path) as store:
        mirrors = [dev_mirror(store, RULES, name) for name in names]
        for at in range(0, 60, 4):
            for mirror, pace in zip(mirrors, (4, 2, 1), strict=True):
                mirror.apply(PLUGIN, busy_inputs(pace, 60)[at // 4 * pace : at // 4 * pace + pace])

        async def test() -> None:
            async with open_feed(path) as feed:
                for chains in (names, names[:2], names[1:]):
                    for keep in (None, 40):
                        if keep is not None:
                            prune(store, keep=keep)
                        log = [event for event in store.events(limit=10_000) if event.chain in chains]
                        kept = [(event.chain, event.sequence, event.step) for event in log]
                        for count in (0, 1, 7, 30, len(log), len(log) + 3, 2**63 - 1):
                            events = [event async for event in feed.subscribe(chains, start=Last(count), follow=False)]
                            assert [(one.chain, one.sequence, one.step) for one in events] == kept[max(0, len(kept) - count) :]
                            for number, event in enumerate(events[:5], start=1):
                                rest = feed.subscribe(chains, cursor=event.cursor, follow=False)
                                assert await all_of(rest) == told(events[number:])

        run(test)


def test_a_failure_inside_comes_out_bare(path: Path) -> None:
    fill(path, chain_of(1))

    async def test() -> None:
        with pytest.raises(KeyError, match="mine"):
            async with open_feed(path):
                raise KeyError("mine")

    run(test)


def test_the_log_of_sqlite_does_not_grow_for_a_stuck_consumer(path: Path) -> None:
    """No consumer keeps a snapshot open between two events."""
    with Store.open(path) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, chain_of(600))

        async def test() -> None:
            async with open_feed(path) as feed:
                await take(feed.subscribe(CHAIN), 1)
                with store.snapshot() as connection:
                    pass
                assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0

        run(test)


def test_events_that_consumers_share_are_bounded(path: Path) -> None:
    """However many different places consumers of the newest events begin at, and without a commit that ends the sharing."""
    with Store.open(path, durable=False) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, chain_of(1))

        async def test() -> None:
            async with open_feed(path) as feed:
                first = feed.subscribe(CHAIN)
                await take(first, 1)
                await trio.to_thread.run_sync(mirror.apply, PLUGIN, chain_of(2001)[1:])
                cursors = [(await anext(first)).cursor for _ in range(2000)]
                for cursor in cursors[::40]:
                    subscription = feed.subscribe(CHAIN, cursor=cursor)
                    left = 2000 - cursors.index(cursor) - 1
                    await take(subscription, left)
                    assert feed.tail.shared.events <= TAIL_EVENTS
                assert len(cursors) * len(cursors[::40]) / 2 > 10 * TAIL_EVENTS

        run(test)


def test_what_a_feed_failed_with_is_told_to_every_consumer(path: Path) -> None:
    """Also to one that was busy when it happened, instead of an end of the events."""
    with Store.open(path) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, chain_of(2))

        async def test() -> None:
            async with open_feed(path) as feed:
                busy, waiting = feed.subscribe(CHAIN), feed.subscribe(CHAIN)
                await take(busy, 1)
                await take(waiting, 2)
                with store.transaction() as connection:
                    connection.execute("UPDATE sqlite_sequence SET seq = 'nonsense'")
                with pytest.raises(StoreError):
                    await take(waiting, 1)
                with store.transaction() as connection:
                    connection.execute("UPDATE sqlite_sequence SET seq = 2")
                assert await take(busy, 1) == [b"b1"]
                with pytest.raises(StoreError):
                    await take(busy, 1)
                with pytest.raises(StoreError):
                    await take(feed.subscribe(CHAIN), 1)

        run(test)


def test_a_store_that_was_replaced_is_noticed(path: Path) -> None:
    """A backup that was put in its place, for instance: the file that was opened will never hear of anything again."""
    fill(path, chain_of(2))
    copy = path.with_name("copy.store")
    copy.write_bytes(path.read_bytes())

    async def test() -> None:
        async with open_feed(path) as feed:
            subscription = feed.subscribe(CHAIN)
            await take(subscription, 2)
            copy.replace(path)
            fill(path, line("n", "b1", 2))
            with pytest.raises(StoreError, match="replaced"):
                await take(subscription, 1)

    run(test, seconds=20)


class TestRefused:
    """What cannot be followed is said, each kind in its own words."""

    def test_wrong_cursors(self, path: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.store"
        for one in (path, other):
            fill(one, chain_of(5))
            with Store.open(one) as store:
                dev_mirror(store, HEAVIEST, "second").apply(PLUGIN, chain_of(1))

        async def test() -> None:
            async with open_feed(path) as feed, open_feed(other) as theirs:
                cursor = (await anext(feed.subscribe(CHAIN))).cursor
                forged = cursor[:60] + ("A" if cursor[60] != "A" else "B") + cursor[61:]
                for wrong, error in (
                    ("nonsense!", CursorMalformed),
                    (cursor[:-4], CursorMalformed),
                    (forged, CursorForged),
                    ((await anext(theirs.subscribe(CHAIN))).cursor, CursorOfAnotherStore),
                    ((await anext(feed.subscribe("second"))).cursor, CursorOfAnotherChain),
                    ((await anext(feed.subscribe([CHAIN, "second"]))).cursor, CursorOfAnotherChain),
                ):
                    with pytest.raises(error) as caught:
                        feed.subscribe(CHAIN, cursor=wrong)
                    assert caught.value.remedy

        run(test)

    def test_a_cursor_of_a_newer_copy(self, path: Path) -> None:
        fill(path, chain_of(5))
        copy = path.with_name("copy.store")
        copy.write_bytes(path.read_bytes())
        fill(path, line("x y", "b4", 5))
        fill(copy, line("u", "b4", 5))

        async def test() -> None:
            async with open_feed(path) as feed, open_feed(copy) as older:
                events = [event async for event in feed.subscribe(CHAIN, follow=False)]
                assert (await anext(older.subscribe(CHAIN, cursor=events[4].cursor))).block.hash == b"u"
                for event in events[5:]:
                    with pytest.raises(CursorUnknown):
                        await anext(older.subscribe(CHAIN, cursor=event.cursor))

        run(test)

    def test_a_consumer_slower_than_the_retention(self, path: Path) -> None:
        with Store.open(path) as store:
            mirror = dev_mirror(store, RULES)
            mirror.apply(PLUGIN, chain_of(1000))

            async def test() -> None:
                async with open_feed(path) as feed:
                    slow = feed.subscribe(CHAIN)
                    await take(slow, 1)
                    prune(store, keep=10)
                    with pytest.raises(CursorTooOld) as caught:
                        await take(slow, 1000)
                    assert caught.value.oldest
                    assert len(await all_of(feed.subscribe(CHAIN, cursor=caught.value.oldest, follow=False))) >= 10

            run(test)

    def test_what_is_asked_for(self, path: Path) -> None:
        fill(path, chain_of(5))

        async def test() -> None:
            async with open_feed(path) as feed:
                wrong: tuple[dict[str, Any], ...] = (
                    {"chain": []},
                    {"chain": [CHAIN, CHAIN]},
                    {"chain": CHAIN, "steps": []},
                    {"chain": CHAIN, "start": -1},
                    {"chain": CHAIN, "start": "yesterday"},
                    {"chain": [CHAIN, "second"], "start": 3},
                    {"chain": [f"c{number}" for number in range(65)]},
                    {"chain": "c" * 256},
                    {"chain": CHAIN, "start": 1 << 63},
                    {"chain": CHAIN, "start": Last(-1)},
                    {"chain": CHAIN, "start": 2.5},
                    {"chain": CHAIN, "steps": ["later"]},
                    {"chain": CHAIN, "addresses": "bc1qsomething"},
                    {"chain": CHAIN, "scripts": ["0014"]},
                )
                for arguments in wrong:
                    with pytest.raises(ConfigurationError):
                        feed.subscribe(**arguments)
                with pytest.raises(NotInStore, match="no chain nothing"):
                    await anext(feed.subscribe("nothing"))
                with pytest.raises(ConfigurationError, match="no addresses"):
                    await anext(feed.subscribe(CHAIN, addresses=["bc1qsomething"]))

        run(test)

    def test_two_tasks_on_one_subscription(self, path: Path) -> None:
        fill(path, chain_of(1))

        async def test() -> None:
            async with open_feed(path) as feed:
                subscription = feed.subscribe(CHAIN, start="now")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(take, subscription, 1)
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    with pytest.raises(trio.BusyResourceError):
                        await anext(subscription)
                    nursery.cancel_scope.cancel()

        run(test)


@pytest.mark.unsanitized("the plugin runs in a sandbox, where no sanitizer can")
class TestRuntime:
    """A running node's own feed."""

    def config(self, store: Path) -> RuntimeConfig:
        settings = {"blocks_dir": str(SAMPLE_BLOCKS), "network": "regtest"}
        return RuntimeConfig(store, (PluginConfig(BLOCKFILES, settings=settings),), PolicyLevel.DEV)

    def test_events_come_as_they_are_committed_and_end_with_the_runtime(self, path: Path) -> None:
        rebuilt, late = Rebuilt(), Rebuilt()
        ended: list[bool] = []

        async def consume(subscription: Subscription, rebuilt: Rebuilt) -> None:
            async for event in subscription:
                assert event.raw is None or event.raw
                rebuilt.apply([event])
            ended.append(True)

        async def test() -> None:
            async with trio.open_nursery() as nursery, open_runtime(self.config(path)) as runtime:
                nursery.start_soon(consume, runtime.subscribe("bitcoin"), rebuilt)
                nursery.start_soon(consume, runtime.subscribe("bitcoin", raw=True, ir=True), late)
                await runtime.wait_idle()
                total = runtime.subscribe("bitcoin", follow=False)
                count = len([event async for event in total])
                while rebuilt.events < count or late.events < count:
                    await trio.sleep(0.01)
            assert ended == [True, True]

        run(test)
        with Store.open(path, read_only=True) as store:
            rebuilt.assert_equals(store, "bitcoin")
            late.assert_equals(store, "bitcoin")

    def test_the_stored_chains_are_those_of_every_run(self, path: Path) -> None:
        fill(path, busy_inputs(4, 10))

        async def test() -> None:
            async with open_runtime(self.config(path)) as runtime:
                await runtime.wait_idle()
                assert list(runtime.chains) == ["bitcoin"]
                assert await runtime.stored_chains() == ("bitcoin", CHAIN)
                events = [event async for event in runtime.subscribe(await runtime.stored_chains(), follow=False)]
                assert {event.chain for event in events} == {"bitcoin", CHAIN}
                (first,) = [event async for event in runtime.subscribe(CHAIN, start=Last(1), follow=False)]
                assert await runtime.stored_chains(first.cursor) == (CHAIN,)
                with pytest.raises(CursorForged):
                    await runtime.stored_chains(first.cursor[:-2] + ("xx" if first.cursor[-2:] != "xx" else "yy"))

        run(test)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("{final: {age: 30d}}", Retention(Kept(30 * 86400))),
            ("{final: {age: 90s, events: 7}}", Retention(Kept(90, 7))),
            ("{final: {age: 90s}, undone: {age: 3h}}", Retention(Kept(90), Kept(10800))),
            ("{final: {age: 90s, events: 7}, undone: {age: forever}}", Retention(Kept(90, 7), Kept(math.inf, 7))),
            ("{final: {age: 90s, events: 7}, undone: {events: 9}}", Retention(Kept(90, 7), Kept(90, 9))),
            ("{final: {age: 90s}, undone: {age: 80s}}", "shorter time"),
            ("{final: {age: 90s}, undone: {age: 90s, events: 7}}", "smaller number"),
            ("{undone: {age: 30d}}", "final"),
            ("{final: {events: 7}}", "age"),
            ("{final: {age: soon}}", "length of time"),
            ("{final: {age: 1d, events: -1}}", "events"),
        ],
    )
    def test_retention_is_configured(self, tmp_path: Path, text: str, found: Retention | str) -> None:
        path = tmp_path / "node.yaml"
        path.write_text(f"store: node.db\nretention: {text}\nplugins: [{{path: plugin}}]\n")
        if isinstance(found, Retention):
            assert RuntimeConfig.load(path).retention == found
        else:
            with pytest.raises(ConfigurationError, match=found):
                RuntimeConfig.load(path)

    def test_a_node_deletes_what_is_older_than_it_keeps(self, path: Path) -> None:
        async def test() -> None:
            async with open_runtime(self.config(path)) as runtime:
                await runtime.wait_idle()
            with Store.open(path) as store, store.transaction() as connection:
                connection.execute("UPDATE commits SET time = 1")
                events = connection.execute("SELECT count(*) FROM events").fetchone()[0]
            async with open_runtime(replace(self.config(path), retention=Retention(Kept(age=60, events=50)))):
                with Store.open(path, read_only=True) as store:
                    while len(log_of(store, "bitcoin")) > events / 2:
                        await trio.sleep(0.01)
            rebuilt = Rebuilt()
            async with open_feed(path) as feed:
                rebuilt.apply([event async for event in feed.subscribe("bitcoin", follow=False)])
            with Store.open(path, read_only=True) as store:
                rebuilt.assert_equals(store, "bitcoin")

        run(test)


@pytest.mark.unsanitized("the plugin runs in a sandbox, where no sanitizer can")
def test_a_filter_finds_what_pays_and_what_spends(tmp_path: Path) -> None:
    """Beside a plain walk over all transactions of the sample chain."""
    from supervm_rt.ir.addresses import address_of
    from tests.cli.support import mirror_sample

    path = tmp_path / "store.db"
    assert mirror_sample(path).status == 0
    scripts: dict[bytes, set[bytes]] = {}
    outputs: dict[tuple[bytes, int], bytes] = {}
    with Store.open(path, read_only=True) as store:
        chain = store.chain("bitcoin")
        new = [event for event in chain.events(limit=100_000) if event.step is Step.NEW]
        for event in new:
            block = chain.block_by_hash(event.block.hash)
            assert block is not None
            for transaction in chain.decoded(block).transactions:
                for number, output in enumerate(transaction.outputs):
                    outputs[transaction.id, number] = output.script
                    scripts.setdefault(output.script, set()).add(transaction.id)
                for spent in transaction.inputs:
                    if (spent.previous_id, spent.previous_index) in outputs:
                        scripts.setdefault(outputs[spent.previous_id, spent.previous_index], set()).add(transaction.id)
    busiest = sorted(scripts, key=lambda script: -len(scripts[script]))
    kinds = {script[:2] + bytes([len(script)]): script for script in reversed(busiest)}

    async def test() -> None:
        async with open_feed(path) as feed:
            for script in kinds.values():
                found = set()
                address = address_of(script, "regtest")
                filters: dict[str, Any] = {"scripts": [script]} if address is None else {"addresses": [address]}
                async for event in feed.subscribe("bitcoin", follow=False, **filters):
                    assert event.transactions
                    found |= {transaction.id for transaction in event.transactions}
                assert found == scripts[script]
            wanted = next(iter(scripts[busiest[0]]))
            steps = [event.step async for event in feed.subscribe("bitcoin", follow=False, transactions=[wanted])]
            assert Step.NEW in steps

    assert len(kinds) > 5
    run(test)
