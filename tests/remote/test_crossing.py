"""A call that is cancelled is over, however the Trio function that it waits for ends."""

from __future__ import annotations

import pytest
import trio
import trio_asyncio

from supervm_rt.transports.remote.crossing import on_trio


@pytest.mark.parametrize("ends", ["with an error", "with a result", "cancelled"])
def test_a_function_that_is_cancelled(ends: str) -> None:
    begun = trio.Event()

    async def function() -> int:
        begun.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if ends == "with an error":
                raise ValueError("the store is closed") from None
            if ends == "cancelled":
                raise
        return 5

    async def main() -> None:
        async with trio_asyncio.open_loop() as loop:
            task = loop.create_task(on_trio(function))
            await begun.wait()
            task.cancel()
            with trio.fail_after(10):
                while not task.done():
                    await trio.lowlevel.checkpoint()
            assert task.cancelled()

    trio.run(main)


def test_what_is_not_cancelled_ends_as_it_does() -> None:
    async def fail() -> None:
        raise ValueError("as it is")

    async def five() -> int:
        return 5

    async def both() -> int:
        with pytest.raises(ValueError, match="as it is"):
            await on_trio(fail)
        return await on_trio(five)

    async def main() -> None:
        async with trio_asyncio.open_loop():
            assert await trio_asyncio.aio_as_trio(both)() == 5

    trio.run(main)
