"""``tail``: a chain's events as lines, from anywhere, with a cursor that is kept for the next time."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import trio

from supervm_rt.cli.output import add_json_option
from supervm_rt.errors import ConfigurationError, CursorError, NotInStore, OperatorError
from supervm_rt.ir.render import transaction_json
from supervm_rt.model.chain import Step
from supervm_rt.store import Store
from supervm_rt.store.feed import BEGINNING, Feed, FeedEvent, Last, Subscription, open_feed

_SHOWN = 10
_LONGEST_STATE = 100_000


def add_commands(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "tail", help="a chain's events as they are committed, also while a node writes the store"
    )
    parser.add_argument(
        "chains",
        metavar="CHAIN",
        nargs="*",
        help="the chain's name in the store; several in the store's order; none: all that it has, or those of the cursor",
    )
    parser.add_argument("--store", type=Path, required=True, metavar="FILE")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cursor", metavar="C", help="go on behind the event that carried it")
    where.add_argument("--from", type=height, metavar="HEIGHT", dest="height", help="begin with the blocks from this height on")
    where.add_argument("--from-start", action="store_true", help="begin with the first event")
    parser.add_argument("--final-only", action="store_true", help="only blocks that have become final")
    parser.add_argument("--address", action="append", default=[], metavar="A", help="only blocks that pay to it or spend from it")
    parser.add_argument("--script", type=_bytes, action="append", default=[], metavar="HEX", help="the same of an output script")
    parser.add_argument("--tx", type=_bytes, action="append", default=[], metavar="TXID", help="only blocks that hold it")
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="keep the cursor in this file, and go on from it where it exists"
    )
    parser.add_argument("--follow", action="store_true", help="wait for more at the end")
    add_json_option(parser, "each event, with its cursor,")
    parser.set_defaults(command=_tail)


def height(text: str) -> int:
    """The type of an option."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is not a height")
    return int(text)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not hexadecimal") from None


def _tail(options: argparse.Namespace) -> int:
    failure = trio.run(_run, options)
    if failure is not None:
        raise failure
    return 0


async def _run(options: argparse.Namespace) -> Exception | None:
    """What it failed with, so that it comes out bare."""
    failure: Exception | None = None
    async with trio.open_nursery() as watchers:
        with trio.CancelScope() as scope:
            await watchers.start(watch_signals, scope)

            async def watch_reader() -> None:
                nonlocal failure
                await _reader_gone()
                failure = BrokenPipeError()
                scope.cancel()

            if options.follow:
                watchers.start_soon(watch_reader)
            try:
                async with open_feed(options.store) as feed:
                    tail = _Tail(options, feed)
                    try:
                        await tail.run()
                    except CursorError as error:
                        tail.explain(error)
                        raise
            except Exception as error:
                failure = error
        watchers.cancel_scope.cancel()
    return failure


async def watch_signals(scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """The first SIGINT or SIGTERM ends it in good order, the second at once."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if scope.cancel_called:
                os._exit(128 + number)
            scope.cancel()


async def _reader_gone() -> None:
    """Waits until nobody can read from the pipe that standard output is: it may be long until something is written again."""
    descriptor = sys.stdout.fileno()
    writes_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    if not (writes_only and stat.S_ISFIFO(os.fstat(descriptor).st_mode)):
        await trio.sleep_forever()
    # Such an end of a pipe is never readable; the kernel tells of its error all the same.
    await trio.lowlevel.wait_readable(descriptor)


class _Tail:
    """From a subscription to standard output; the cursor goes to its file behind the lines."""

    def __init__(self, options: argparse.Namespace, feed: Feed) -> None:
        self._options = options
        self._feed = feed
        self._state: Path | None = options.state
        self._saved: str | None = None
        self._chains: Sequence[str] = options.chains
        self._networks: dict[str, str] = {}

    async def run(self) -> None:
        options = self._options
        if self._state is not None:
            self._saved = await trio.to_thread.run_sync(_load, self._state)
            # What cannot be kept is not begun: lines would be printed again each time.
            await trio.to_thread.run_sync(_try_to_store, self._state)
        if not self._chains:
            self._chains = await self._feed.stored_chains(self._saved or options.cursor)
        if not self._chains:
            raise NotInStore(f"the store {options.store} has no chain", remedy="fill it with the mirror command")
        self._networks = await trio.to_thread.run_sync(partial(_networks, options.store, self._chains))
        subscription = self._subscribe()
        while True:
            events = await subscription.batch(wait=False)
            if not events:
                # A filter may have dropped much: the next time need not read it again.
                await self._save(subscription.cursor)
                if not options.follow:
                    return
                events = await subscription.batch()
                if not events:
                    return
            text = "".join(map(self._line, events)).encode("utf-8", "backslashreplace")
            # A reader that does not read must not keep a signal from ending this.
            await trio.to_thread.run_sync(_write, text, abandon_on_cancel=True)
            await self._save(events[-1].cursor)

    def explain(self, error: CursorError) -> None:
        """Says where the cursor came from, if not from the command line."""
        if self._saved is not None:
            error.message = f"--state {self._state}: {error.message}"
            error.remedy = f"{error.remedy}; delete the file to begin anew"

    def _subscribe(self) -> Subscription:
        options = self._options
        cursor = self._saved or options.cursor
        # Who keeps a cursor wants all events, who only looks the last ones.
        start: str | int | Last = BEGINNING
        if options.height is not None:
            start = options.height
        elif not options.from_start and self._state is None:
            start = Last(_SHOWN)
        return self._feed.subscribe(
            self._chains,
            cursor=cursor,
            start=start,
            steps=[Step.FINAL] if options.final_only else list(Step),
            addresses=options.address,
            scripts=options.script,
            transactions=options.tx,
            follow=options.follow,
        )

    async def _save(self, cursor: str | None) -> None:
        if self._state is not None and cursor is not None and cursor != self._saved:
            await trio.to_thread.run_sync(_store, self._state, cursor)
            self._saved = cursor

    def _line(self, event: FeedEvent) -> str:
        block = event.block
        if not self._options.json:
            name = f"{event.chain}  " if len(self._chains) > 1 else ""
            found = "".join(f"  {transaction.id.hex()}" for transaction in event.transactions or ())
            return f"{name}{event.sequence or '-':>9}  {event.step:<5}  {block.height:>9}  {block.hash.hex()}{found}\n"
        value: dict[str, object] = {
            "chain": event.chain,
            "sequence": event.sequence,
            "step": str(event.step),
            "hash": block.hash.hex(),
            "height": block.height,
            "parent": event.parent.hex(),
            "time": event.time,
            "committed": event.committed,
        }
        if event.transactions is not None:
            value["transactions"] = [
                transaction_json(
                    transaction,
                    chain=event.chain,
                    network=self._networks[event.chain],
                    timestamp=event.time,
                    block_hash=block.hash,
                    height=block.height,
                )
                for transaction in event.transactions
            ]
        value["cursor"] = event.cursor
        return json.dumps(value, separators=(", ", ": ")) + "\n"


def _networks(path: Path, chains: Sequence[str]) -> dict[str, str]:
    """Raises NotInStore for a chain that there is not."""
    with Store.open(path, read_only=True) as store:
        return {name: store.chain(name).info().network for name in chains}


def _write(text: bytes) -> None:
    descriptor = sys.stdout.fileno()
    view = memoryview(text)
    while view:
        view = view[os.write(descriptor, view) :]


def _load(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_STATE + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"--state {path}: cannot be read ({why})", remedy="name a file") from None
    text = data.decode("ascii", "replace").strip()
    if not text:
        raise ConfigurationError(f"--state {path}: holds no cursor", remedy="delete it to begin anew")
    return text


def _store(path: Path, cursor: str) -> None:
    """Under another name first: whoever reads it, after whatever failure, sees a whole one."""
    with _draft(path) as (file, target):
        file.write(cursor + "\n")
        file.flush()
        os.fsync(file.fileno())
        Path(file.name).replace(target)


def _try_to_store(path: Path) -> None:
    """Raises OperatorError where a cursor could not be kept."""
    with _draft(path):
        pass


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[tuple[IO[str], Path]]:
    """A new file beside where a path leads, and that place; it goes where it is not put there. Raises OperatorError."""
    try:
        target = path.resolve()
        with tempfile.NamedTemporaryFile(
            "w", encoding="ascii", prefix=f".{target.name}.", dir=target.parent, delete=False
        ) as file:
            try:
                yield file, target
            finally:
                with contextlib.suppress(OSError):
                    Path(file.name).unlink(missing_ok=True)
    except OSError as error:
        raise OperatorError(
            f"--state {path}: cannot be written ({error.strerror})", remedy="name a file in a folder that this user may write"
        ) from None
