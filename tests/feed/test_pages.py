"""The compiled part of a subscription: whatever is done with its steps, each event is given once, in order, and nothing leaks."""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from supervm_rt.store import Store
from supervm_rt.store.feed import Feed, Subscription, open_feed
from supervm_rt.store.feed._pages import Pages
from supervm_rt.store.feed.reader import PAGE_EVENTS
from tests.store.support import CHAIN, PLUGIN, chain_of, dev_mirror

LENGTH = 3 * PAGE_EVENTS


class Numbers(Pages):
    """Pages of anything."""

    pause: Callable[[], Awaitable[None]] = staticmethod(trio.lowlevel.checkpoint)

    def __init__(self, *pages: list[Any], at_hand: Any = ()) -> None:
        self._rest = list(pages)
        self._page = list(at_hand)

    async def _advance(self) -> Any:
        await self.pause()
        while self._next >= len(self._page):
            if not self._rest:
                raise StopAsyncIteration
            self._page, self._next = self._rest.pop(0), 0
        self._next += 1
        return self._page[self._next - 1]


@types.coroutine
def yielding() -> Generator[None]:
    """Waits for the next send."""
    yield


def step_of(pages: Pages) -> Any:
    """A step, as the statement ``async for`` takes it."""
    return pages.__anext__()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "chain.store"
    with Store.open(path, durable=False) as store:
        dev_mirror(store).apply(PLUGIN, chain_of(LENGTH))
    return path


def subscribed(path: Path, test: Callable[[Subscription], Coroutine[Any, Any, None]], *, follow: bool = False) -> None:
    """Runs the test with a subscription to a chain of LENGTH blocks."""

    async def run() -> None:
        with trio.fail_after(60):
            async with open_feed(path) as feed:
                await test(feed.subscribe(CHAIN, follow=follow))

    trio.run(run)


def height(event: Any) -> int:
    value: int = event.block.height
    return value


def test_an_event_at_hand_is_given_without_a_coroutine(path: Path) -> None:
    async def test(subscription: Subscription) -> None:
        assert isinstance(subscription, AsyncIterator)
        first = await anext(subscription)
        steps = set()
        heights = [height(first)]
        for _ in range(PAGE_EVENTS - 1):
            step = step_of(subscription)
            steps.add(type(step).__name__)
            heights.append(height(await step))
        assert steps == {"Step"}
        heights += [height(event) async for event in subscription]
        assert heights == list(range(LENGTH))
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)
        assert await anext(subscription, None) is None

    subscribed(path, test)


def test_steps_in_any_order_give_each_event_once(path: Path) -> None:
    async def test(subscription: Subscription) -> None:
        await anext(subscription)
        steps = [step_of(subscription) for _ in range(10)]
        assert [height(await step) for step in reversed(steps)] == list(range(1, 11))
        step_of(subscription)  # one that nobody awaits takes nothing
        assert height(await anext(subscription)) == 11
        assert height(await anext(subscription, None)) == 12
        with pytest.raises(RuntimeError, match="again"):
            await steps[0]

    subscribed(path, test)


def test_a_step_whose_page_was_taken_meanwhile_goes_on_with_the_next_one(path: Path) -> None:
    async def test(subscription: Subscription) -> None:
        await anext(subscription)
        step = step_of(subscription)
        assert len(await subscription.batch()) == PAGE_EVENTS - 1
        assert height(await step) == PAGE_EVENTS
        assert height(await anext(subscription)) == PAGE_EVENTS + 1

    subscribed(path, test)


def test_such_a_step_can_be_cancelled_while_it_waits(path: Path) -> None:
    async def test(subscription: Subscription) -> None:
        await anext(subscription)
        step = step_of(subscription)
        for _ in range(LENGTH // PAGE_EVENTS):
            await subscription.batch()
        with trio.move_on_after(0.01) as scope:
            await step
        assert scope.cancelled_caught
        with pytest.raises(RuntimeError, match="again"):
            await step
        with Store.open(path, durable=False) as store:
            dev_mirror(store).apply(PLUGIN, chain_of(LENGTH + 1)[LENGTH:])
        assert height(await anext(subscription)) == LENGTH

    subscribed(path, test, follow=True)


def test_one_task_at_a_time_waits(path: Path) -> None:
    async def test(subscription: Subscription) -> None:
        for _ in range(LENGTH):
            await anext(subscription)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscription.__anext__)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(trio.BusyResourceError):
                await anext(subscription)
            nursery.cancel_scope.cancel()

    subscribed(path, test, follow=True)


def test_a_step_is_a_task_as_a_coroutine_is(path: Path) -> None:
    async def test(subscription: Subscription) -> None:
        await anext(subscription)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscription.__anext__)
        assert height(await anext(subscription)) == 2

    subscribed(path, test)


def test_what_is_thrown_into_a_step_comes_out() -> None:
    pages = Numbers(at_hand=[0])
    step = step_of(pages)
    with pytest.raises(KeyError, match="a"):
        step.throw(KeyError("a"))
    with pytest.raises(KeyError, match="b"):
        step_of(pages).throw(KeyError, KeyError("b"), None)
    with pytest.raises(ValueError, match="c"):
        step_of(pages).throw(ValueError, "c")
    with pytest.raises(KeyError):
        step_of(pages).throw(KeyError)
    for wrong in ((), (1,), (1, 2, 3, 4)):
        with pytest.raises(TypeError, match="exception"):
            step_of(pages).throw(*wrong)
    closed = step_of(pages)
    closed.close()
    closed.close()
    with pytest.raises(RuntimeError):
        closed.send(None)

    # The same where it has gone on as a coroutine.
    for end in ("throw", "close", "send"):
        pages = Numbers([1, 2], at_hand=[0])
        pages.pause = yielding
        step = step_of(pages)
        pages._next = 1
        step.send(None)
        if end == "throw":
            with pytest.raises(KeyError):
                step.throw(KeyError())
        elif end == "close":
            step.close()
        else:
            with pytest.raises(StopIteration) as stopped:
                step.send(None)
            assert stopped.value.value == 1
        with pytest.raises(RuntimeError):
            next(step)


def test_values_that_look_like_a_result_stay_whole() -> None:
    values: list[Any] = [(1, 2), StopIteration(3), None, ()]
    pages = Numbers(at_hand=values)
    for value in values:
        with pytest.raises(StopIteration) as stopped:
            next(step_of(pages))
        assert stopped.value.value is value


@pytest.mark.parametrize("page", [(1, 2), None, {1: 2}])
def test_a_page_that_is_no_list_is_refused(page: Any) -> None:
    pages = Numbers(at_hand=[1])
    step = step_of(pages)
    pages._page = page
    with pytest.raises(TypeError, match="list"):
        step.send(None)
    with pytest.raises(TypeError, match="list"):
        step_of(pages)
    del pages._page
    with pytest.raises(TypeError, match="list"):
        step_of(pages)


@pytest.mark.parametrize("place", [-1, 2, sys.maxsize, -sys.maxsize - 1])
def test_a_place_outside_the_page_is_no_event(place: int) -> None:
    pages = Numbers(at_hand=[5, 6])
    early = step_of(pages)
    pages._next = place
    late = step_of(pages)
    assert type(late) is types.CoroutineType
    late.close()
    pages.pause = yielding
    assert early.send(None) is None, "it waits"
    early.close()


def test_a_subclass_without_more_pages_says_so() -> None:
    with pytest.raises(AttributeError, match="_advance"):
        step_of(Pages())
    with pytest.raises(TypeError):
        type(step_of(Numbers(at_hand=[1])))()


def test_nothing_is_kept_alive_and_nothing_freed_too_early() -> None:
    async def test() -> None:
        values = [object() for _ in range(100)]
        counts = [sys.getrefcount(value) for value in values]
        pages = Numbers(list(values), list(values))
        assert [value async for value in pages] == values * 2
        gone = weakref.ref(pages)
        del pages
        assert gone() is None, "no cycle is left behind"
        assert [sys.getrefcount(value) for value in values] == counts

        pages = Numbers(list(values))
        await anext(pages)
        pages.held = step_of(pages)  # type: ignore[attr-defined]  # a cycle, which the collector has to find
        gone = weakref.ref(pages)
        del pages
        gc.collect()
        assert gone() is None
        assert [sys.getrefcount(value) for value in values] == counts

    trio.run(test)


def test_a_feed_that_ends_ends_its_steps(path: Path) -> None:
    async def test() -> None:
        feed = Feed.at(path, told=True)
        subscription = feed.subscribe(CHAIN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run)
            await anext(subscription)
            nursery.cancel_scope.cancel()
        rest = [height(event) async for event in subscription]
        assert rest == list(range(1, PAGE_EVENTS))

    trio.run(test)
