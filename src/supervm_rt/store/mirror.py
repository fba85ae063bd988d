"""One chain, followed and stored: the fork tracker decides, one transaction per batch keeps all that it decided."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from supervm_rt.chain.tracker import ForkStatistics, ForkTracker
from supervm_rt.chain.types import Candidate, ForkRules, ForkState, KnownBlock, Outcome, WindowBlock
from supervm_rt.errors import ConfigurationError, StoreError
from supervm_rt.ir.translator import TranslatedBlock, Translator
from supervm_rt.model.chain import BlockRef, Reason, Rejection, Step, Verdict
from supervm_rt.store.batch import TRANSACTION_ID_BYTES, Batch, NewBlock, Totals
from supervm_rt.store.faults import decoding
from supervm_rt.store.inputs import Applied, BlockInput, Buffer, FinalInput, Input, RefusedInput, ReorgInput
from supervm_rt.store.schema import HIGHEST_INTEGER, LARGEST_BODY, StateCode, StepCode

if TYPE_CHECKING:
    from supervm_rt.store.database import Store

_STEPS: Final = {Step.NEW: int(StepCode.NEW), Step.UNDO: int(StepCode.UNDO), Step.FINAL: int(StepCode.FINAL)}
_STATES: Final = {Step.NEW: StateCode.CANONICAL, Step.UNDO: StateCode.SIDE}
_EVICTED: Final = "the block waited for its parent, and newer ones needed the room"


class _GenesisFrame(bytes):
    """The built-in genesis block as a plugin that claims nothing of it would send it."""

    hash = b""
    parent = b""
    height = 0
    time = None
    weight = None


class _Place(NamedTuple):
    """What the mirror remembers of each block in the tracker's window or among its orphans."""

    id: int
    transactions: int
    size: int


class Mirror:
    """A chain that is open for writing; made by ``Store.mirror``, used by one thread at a time like its store.

    Memory depends on the blocks that are not final and on the orphans, not on the chain.
    """

    def __init__(
        self, store: Store, name: str, *, chain: int, translator: Translator, rules: ForkRules, connection: sqlite3.Connection
    ) -> None:
        """For ``open_mirror``, inside its transaction."""
        self.name = name
        self.rules = rules
        self._store = store
        self._chain = chain
        self._translator = translator
        self._unusable = ""
        self._batch: Batch | None = None
        self._places: dict[bytes, _Place] = {}
        self._totals = Totals()
        self._base: bytes | None = None
        """The last final block: the oldest that the tracker holds, once one is final."""
        self._first: BlockRef | None = None
        """The first block that a plugin sent, where its height was settled without regard to what the plugin claimed."""
        self._first_id: int | None = None
        with decoding(store.path):
            self._tracker = ForkTracker(rules, self._load(connection), self._known)

    @property
    def tip(self) -> BlockRef | None:
        """The last canonical block; None before the first block."""
        return self._tracker.tip

    @property
    def final(self) -> BlockRef | None:
        """The last final block; None while nothing is final."""
        return self._tracker.final

    @property
    def broken(self) -> bool:
        """Whether this mirror can no longer be used; ``Store.mirror`` opens the chain again."""
        return bool(self._unusable)

    def statistics(self) -> ForkStatistics:
        """What the fork tracker holds just now."""
        return self._tracker.statistics()

    def position(self, plugin: str) -> bytes | None:
        """Where this plugin goes on; None: from the beginning."""
        return self._store.position(plugin, self.name)

    def disable(self, why: str) -> None:
        """Ends the use of this mirror."""
        self._unusable = self._unusable or why

    def apply(self, plugin: str, inputs: Sequence[Input]) -> list[Applied]:
        """Decides these inputs of one plugin in order and commits all that follows from them, with the last position, at once.

        Raises StoreFull, StoreCorrupt or StoreError; then none of it is in the store, and this mirror is broken: what it
        remembers may be ahead of the store. Refused blocks are no errors: see ``Applied``.
        """
        if self._unusable:
            raise StoreError(
                f"this mirror of the chain {self.name} can no longer be used: {self._unusable}", remedy="open it again"
            )
        if not inputs:
            return []
        try:
            with self._store.transaction() as connection:
                return self._apply(connection, plugin, inputs)
        except BaseException as error:
            self.disable(f"a batch was not stored ({error})")
            raise
        finally:
            self._batch = None

    def set_root(self, root: BlockRef) -> None:
        """Starts an empty chain at a block of which only id and height are known: tip and final, without an event."""
        try:
            with self._store.transaction() as connection:
                self._batch = batch = self._begin(connection)
                outcome = self._tracker.set_root(root)
                candidate = outcome.connected[0].candidate
                nothing = TranslatedBlock(root.hash, candidate.parent, 0, 0, None, root.height, transaction_ids=b"", ir=b"")
                self._store_block(candidate, StateCode.CANONICAL, root.height, nothing, b"")
                self._totals.connected = self._totals.canonical = 1
                self._base = root.hash
                self._finish(batch)
        except BaseException as error:
            self.disable(f"the root was not stored ({error})")
            raise
        finally:
            self._batch = None

    def _apply(self, connection: sqlite3.Connection, plugin: str, inputs: Sequence[Input]) -> list[Applied]:
        self._batch = batch = self._begin(connection)
        applied = [self._one(input_) for input_ in inputs]
        self._finish(batch)
        position = next((input_.position for input_ in reversed(inputs) if input_.position), None)
        if position is not None:
            connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (plugin, self._chain, position))
        return applied

    def _begin(self, connection: sqlite3.Connection) -> Batch:
        (highest,) = connection.execute("SELECT max(id) FROM blocks").fetchone()
        return Batch(connection, self._chain, (highest or 0) + 1)

    def _finish(self, batch: Batch) -> None:
        totals = self._totals
        totals.events += len(batch.events)
        batch.write(totals)
        tip, final = self._tracker.tip, self._tracker.final
        batch.connection.execute(
            "UPDATE chains SET first = ?, tip = ?, final = ?, final_claim = ?, connected = ?, canonical = ?,"
            " transactions = ?, indexed = ?, bytes = ?, events = ?, reorgs = ?, deepest_reorg = ? WHERE id = ?",
            (
                self._first_id,
                self._places[tip.hash].id if tip is not None else None,
                self._places[final.hash].id if final is not None else None,
                self._tracker.final_claim,
                totals.connected,
                totals.canonical,
                totals.transactions,
                totals.indexed,
                totals.bytes,
                totals.events,
                totals.reorgs,
                totals.deepest_reorg,
                self._chain,
            ),
        )

    def _one(self, input_: Input) -> Applied:
        match input_:
            case BlockInput():
                return self._block(input_)
            case RefusedInput(rejection):
                return Applied(input_, Outcome(Verdict.REJECTED, rejection.reason, rejection.detail), (rejection,))
            case FinalInput(hash_, height):
                outcome = self._tracker.finalize(hash_, height)
                self._record(outcome)
                return Applied(input_, outcome, _own_rejection(hash_, outcome))
            case ReorgInput(from_height, to_height, orphans):
                outcome = self._tracker.reorg(from_height, to_height, orphans)
                self._record(outcome)
                return Applied(input_, outcome, _own_rejection(None, outcome))
            case _:
                return Applied(input_, Outcome(Verdict.ACCEPTED))

    def _block(self, input_: BlockInput) -> Applied:
        block = input_.translated
        size = memoryview(input_.raw).nbytes
        if len(block.ir) + size > LARGEST_BODY or not -HIGHEST_INTEGER <= block.time <= HIGHEST_INTEGER:
            return self._refuse(input_, Reason.MALFORMED, "the block is larger, or of a later time, than a store can hold")
        height = block.height
        settled = False
        before: Outcome | None = None
        genesis = self._translator.genesis_hash
        if genesis is not None and block.hash == genesis:
            height = 0
        elif self._first is not None and block.hash == self._first.hash:
            height = self._first.height
        elif self._tracker.tip is None:
            if genesis is not None and block.parent == genesis and self._translator.genesis is not None:
                before = self._genesis_first(self._translator.genesis)
                height, settled = 1, True
            elif block.root_height is not None:
                height, settled = block.root_height, True
            elif height is None:
                return self._refuse(input_, Reason.HEIGHT, "cannot tell the height of the first block: set start_height")
        candidate = Candidate(
            hash=block.hash,
            parent=block.parent,
            height=height,
            weight=block.weight,
            final_height=None if input_.final_height is None else min(input_.final_height, HIGHEST_INTEGER),
            content=block.content,
        )
        outcome = self._tracker.block(candidate)
        dropped = False
        if outcome.connected:
            first = outcome.connected[0]
            self._store_block(candidate, StateCode.SIDE, first.block.height, block, input_.raw)
            if settled:
                self._first, self._first_id = first.block, self._places[block.hash].id
        elif outcome.verdict is Verdict.ORPHAN:
            dropped = self.rules.orphan_limit == 0
            if not dropped:
                self._store_block(candidate, StateCode.WAITING, height, block, input_.raw)
        self._record(outcome)
        rejected = (
            *_own_rejection(block.hash, outcome),
            *(Rejection(hash_, Reason.ORPHAN_LIMIT, _EVICTED) for hash_ in outcome.evicted),
            *outcome.refused,
        )
        if before is not None:
            outcome = dataclasses.replace(
                outcome, events=before.events + outcome.events, connected=before.connected + outcome.connected
            )
        return Applied(input_, outcome, rejected, dropped)

    def _refuse(self, input_: BlockInput, reason: Reason, detail: str) -> Applied:
        return Applied(input_, Outcome(Verdict.REJECTED, reason, detail), (Rejection(input_.translated.hash, reason, detail),))

    def _genesis_first(self, raw: bytes) -> Outcome:
        """Applies the built-in first block that the plugin left out."""
        block = self._translator.translate(_GenesisFrame(raw))
        candidate = Candidate(hash=block.hash, parent=block.parent, height=0, weight=block.weight, content=block.content)
        outcome = self._tracker.block(candidate)
        self._store_block(candidate, StateCode.SIDE, 0, block, raw)
        self._record(outcome)
        return outcome

    def _store_block(
        self, candidate: Candidate, state: StateCode, height: int | None, block: TranslatedBlock, raw: Buffer
    ) -> None:
        """Puts a new block into the batch."""
        batch = self._batch
        assert batch is not None
        size = memoryview(raw).nbytes
        self._places[candidate.hash] = _Place(batch.next_id, len(block.transaction_ids) // TRANSACTION_ID_BYTES, size)
        batch.add(NewBlock(batch.next_id, candidate, block, raw, size, state, height))

    def _record(self, outcome: Outcome) -> None:
        """Puts what an input has changed into the batch; a block that it brought is there already."""
        batch, places, totals = self._batch, self._places, self._totals
        assert batch is not None
        for hash_ in outcome.evicted:
            batch.remove(hash_, places.pop(hash_).id)
        for rejection in outcome.refused:
            assert rejection.hash is not None  # an orphan was known by its id
            batch.remove(rejection.hash, places.pop(rejection.hash).id)
        for number, connected in enumerate(outcome.connected):
            place = places[connected.block.hash]
            totals.connected += 1
            totals.bytes += place.size
            if number > 0:  # the first is the input itself
                batch.connect(connected.block.hash, place.id, connected.block.height)
                batch.set_state(connected.block.hash, place.id, StateCode.SIDE)
        undone = 0
        for event in outcome.events:
            hash_ = event.block.hash
            place = places[hash_]
            batch.events.append((self._chain, _STEPS[event.step], place.id))
            if event.step is Step.FINAL:
                self._leave_behind(hash_)
                continue
            batch.set_state(hash_, place.id, _STATES[event.step])
            sign = 1 if event.step is Step.NEW else -1
            totals.canonical += sign
            totals.transactions += sign * place.transactions
            undone += sign < 0
        if undone:
            totals.reorgs += 1
            totals.deepest_reorg = max(totals.deepest_reorg, undone)
        for hash_ in outcome.cut:
            batch.set_state(hash_, places.pop(hash_).id, StateCode.CUT)

    def _leave_behind(self, new_final: bytes) -> None:
        """Forgets the final block that this one follows: it has left the window."""
        if self._base is not None and self._base != new_final:
            self._places.pop(self._base, None)
        self._base = new_final

    def _known(self, hash_: bytes) -> KnownBlock | None:
        """The tracker's archive: what it connected before and no longer holds, with all that this batch has done."""
        batch = self._batch
        assert batch is not None
        new = batch.new.get(hash_)
        if new is not None:
            if new.state is StateCode.WAITING or new.height is None:
                return None
            candidate = new.candidate
            return KnownBlock(candidate.parent, new.height, candidate.weight, candidate.content, new.state is StateCode.CANONICAL)
        row = batch.connection.execute(
            "SELECT id, parent, height, weight, content, state FROM blocks WHERE chain = ? AND hash = ?", (self._chain, hash_)
        ).fetchone()
        if row is None:
            return None
        id_, parent, height, weight, content, state = row
        state = batch.states.get(id_, state)
        if state == StateCode.WAITING:
            return None
        with decoding(self._store.path):
            height = batch.connected.get(id_, height)
            return KnownBlock(parent, height, int.from_bytes(weight, "big"), content, state == StateCode.CANONICAL)

    def _load(self, connection: sqlite3.Connection) -> ForkState:
        """Reads back what the tracker and this mirror remember."""
        first, tip, final, claim, *totals = connection.execute(
            "SELECT first, tip, final, final_claim, connected, canonical, transactions, indexed, bytes, events, reorgs,"
            " deepest_reorg FROM chains WHERE id = ?",
            (self._chain,),
        ).fetchone()
        self._totals = Totals(*totals)
        self._first = _reference(connection, first)
        self._first_id = first
        final_block = _reference(connection, final)
        self._base = None if final_block is None else final_block.hash
        columns = "b.id, b.hash, b.parent, b.height, b.weight, b.content, b.final_height, b.transactions, b.size"
        window = []
        for row in connection.execute(
            f"SELECT {columns} FROM blocks b WHERE chain = ? AND height >= ? AND state IN (?, ?) ORDER BY height, id",
            (self._chain, -1 if final_block is None else final_block.height, StateCode.SIDE, StateCode.CANONICAL),
        ):
            candidate = self._remember(row)
            window.append(WindowBlock(candidate, row[3], row[0]))
        waiting = connection.execute(
            f"SELECT {columns} FROM waiting w JOIN blocks b ON b.id = w.block WHERE w.chain = ? ORDER BY w.block", (self._chain,)
        )
        orphans = [(row[0], self._remember(row)) for row in waiting]
        (highest,) = connection.execute("SELECT max(id) FROM blocks").fetchone()
        tip_block = _reference(connection, tip)
        return ForkState(
            window=tuple(window),
            tip=None if tip_block is None else tip_block.hash,
            final=final_block,
            orphans=tuple(orphans),
            final_claim=claim,
            next_order=(highest or 0) + 1,
        )

    def _remember(self, row: tuple[int, bytes, bytes, int | None, bytes, bytes, int | None, int, int]) -> Candidate:
        id_, hash_, parent, height, weight, content, final_height, transactions, size = row
        self._places[hash_] = _Place(id_, transactions, size)
        return Candidate(hash_, parent, height, int.from_bytes(weight, "big"), final_height, content)


def open_mirror(store: Store, name: str, translator: Translator, rules: ForkRules) -> Mirror:
    """What ``Store.mirror`` does."""
    if rules.orphan_limit < 0 or (rules.final_depth is not None and rules.final_depth < 0):
        raise ConfigurationError(
            f"the rules of the chain {name} hold a negative number", remedy="set orphan_limit and final_depth to 0 or more"
        )
    with store.transaction() as connection:
        row = connection.execute("SELECT id, family, network, mode, holes FROM chains WHERE name = ?", (name,)).fetchone()
        bounds = (rules.final_depth, rules.orphan_limit)
        settings = tuple(None if bound is None else min(bound, HIGHEST_INTEGER) for bound in bounds)
        if row is None:
            chain = connection.execute(
                "INSERT INTO chains (name, family, network, mode, holes, final_depth, orphan_limit) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (name, translator.family, translator.network, rules.mode.value, rules.holes, *settings),
            ).lastrowid
            assert chain is not None
        else:
            chain, *stored = row
            wanted = [translator.family, translator.network, rules.mode.value, int(rules.holes)]
            if stored != wanted and _is_empty(connection, chain):
                # Nothing was ever mirrored under the name, so it is still free to become another chain.
                connection.execute(
                    "UPDATE chains SET family = ?, network = ?, mode = ?, holes = ? WHERE id = ?", (*wanted, chain)
                )
            elif stored != wanted:
                raise ConfigurationError(
                    f"the chain {name} in {store.path} is {_describe(stored)}; the configuration says {_describe(wanted)}",
                    remedy="give this one a chain name of its own, or a store of its own",
                )
            connection.execute("UPDATE chains SET final_depth = ?, orphan_limit = ? WHERE id = ?", (*settings, chain))
        return Mirror(store, name, chain=chain, translator=translator, rules=rules, connection=connection)


def _is_empty(connection: sqlite3.Connection, chain: int) -> bool:
    return connection.execute("SELECT 1 FROM blocks WHERE chain = ? LIMIT 1", (chain,)).fetchone() is None


def _describe(identity: Sequence[str | int]) -> str:
    family, network, mode, holes = identity
    return f"{family}{f' {network}' if network else ''} in mode {mode}{', with holes between heights' if holes else ''}"


def _own_rejection(hash_: bytes | None, outcome: Outcome) -> tuple[Rejection, ...]:
    if outcome.verdict is not Verdict.REJECTED or outcome.reason is None:
        return ()
    return (Rejection(hash_, outcome.reason, outcome.detail),)


def _reference(connection: sqlite3.Connection, block: int | None) -> BlockRef | None:
    if block is None:
        return None
    return BlockRef(*connection.execute("SELECT hash, height FROM blocks WHERE id = ?", (block,)).fetchone())
