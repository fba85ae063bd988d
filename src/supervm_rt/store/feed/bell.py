"""Hears the commits of another process: it writes the store's lock file after each (``store.lock``), and inotify tells.

Where the kernel cannot tell (a network file system, no more watches), the store is looked at once a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import trio
from inotify_simple import INotify, flags

from supervm_rt.store.lock import bell_path

LOOK_EVERY: Final = 1.0
"""Seconds; a look costs a few microseconds."""


async def listen(
    store: Path, ring: Callable[[], None], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> NoReturn:
    """Calls ``ring`` after each commit of whoever writes the store, now and then for several at once. Runs until cancelled."""
    bell = bell_path(store)
    try:
        inotify = await trio.to_thread.run_sync(INotify)
    except OSError:
        task_status.started()
        await _look(ring)
    with inotify:
        # A store that was copied has no such file before its first writer; and someone may delete it.
        with contextlib.suppress(OSError):
            inotify.add_watch(bell.parent, flags.CREATE | flags.MOVED_TO | flags.ONLYDIR)
        with contextlib.suppress(OSError):
            inotify.add_watch(bell, flags.MODIFY)
        task_status.started()
        look = trio.current_time() + LOOK_EVERY
        while True:
            heard = False
            with trio.move_on_at(look):
                await trio.lowlevel.wait_readable(inotify.fileno())
                for event in inotify.read(timeout=0):
                    # Of the folder, other files are no matter; what is of no file says that some were lost.
                    heard = heard or not event.name or event.name == bell.name
                    if event.name == bell.name:
                        with contextlib.suppress(OSError):
                            inotify.add_watch(bell, flags.MODIFY)
            now = trio.current_time()
            if heard or now >= look:
                look = now + LOOK_EVERY
                ring()


async def _look(ring: Callable[[], None]) -> NoReturn:
    while True:
        await trio.sleep(LOOK_EVERY)
        ring()
