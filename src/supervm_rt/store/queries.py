"""The read side: chains, blocks, transactions, events. Works on any open store; each call sees one state of it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from supervm_rt.chain.types import ForkRules
from supervm_rt.errors import NotInStore, StoreCorrupt
from supervm_rt.ir.decode import decode_block
from supervm_rt.model.chain import BlockRef, ForkMode, Step
from supervm_rt.model.ir import BlockIR, TransactionIR, TransactionOutput
from supervm_rt.store.batch import TRANSACTION_ID_BYTES, transaction_prefixes
from supervm_rt.store.faults import RESTORE, decoding
from supervm_rt.store.records import BlockState, ChainInfo, ChainStatistics, StoredBlock, StoredEvent, StoredTransaction
from supervm_rt.store.schema import HIGHEST_INTEGER, StateCode, StepCode

if TYPE_CHECKING:
    from supervm_rt.store.database import Store

STEPS: Final = {StepCode.NEW: Step.NEW, StepCode.UNDO: Step.UNDO, StepCode.FINAL: Step.FINAL}

_STATES: Final = {StateCode.WAITING: BlockState.WAITING, StateCode.SIDE: BlockState.SIDE, StateCode.CUT: BlockState.CUT}
_BLOCK: Final = (
    "SELECT b.id, b.hash, b.parent, b.height, b.weight, b.time, b.transactions, b.size, b.state, f.height"
    " FROM blocks b JOIN chains c ON c.id = b.chain LEFT JOIN blocks f ON f.id = c.final"
)
_DECODED_BLOCKS_KEPT: Final = 16


class ChainReader:
    """One chain of a store, for reading; made by ``Store.chain``. Lives as long as its store."""

    def __init__(self, store: Store, chain: int, name: str) -> None:
        """For ``resolve_chain``."""
        self.name = name
        self._store = store
        self._chain = chain

    def info(self) -> ChainInfo:
        """The chain's settings, tip and last final block."""
        with self._store.snapshot() as connection:
            row = connection.execute(f"{_CHAIN} WHERE c.id = ?", (self._chain,)).fetchone()
        with decoding(self._store.path):
            return _chain_info(row)

    def tip(self) -> BlockRef | None:
        """The last canonical block; None before the first one."""
        return self.info().tip

    def final(self) -> BlockRef | None:
        """The last final block; None while nothing is final."""
        return self.info().final

    def block_at(self, height: int) -> StoredBlock | None:
        """The canonical block at this height."""
        if not 0 <= height <= HIGHEST_INTEGER:
            return None
        return self._block("b.chain = ? AND b.height = ? AND b.state = ?", self._chain, height, int(StateCode.CANONICAL))

    def block_by_hash(self, hash_: bytes) -> StoredBlock | None:
        """The known block of this id, on whatever branch, waiting ones included."""
        return self._block("b.chain = ? AND b.hash = ?", self._chain, hash_)

    def find_block(self, text: str) -> StoredBlock:
        """The block that a person names: a height (of a canonical block), or a whole hash in hexadecimal, ``0x`` or not.

        Digits that are no canonical height are tried as a hash. Raises NotInStore.
        """
        number = text.isascii() and text.isdecimal()
        found = self.block_at(int(text)) if number and len(text) <= 19 else None
        if found is None:
            try:
                found = self.block_by_hash(bytes.fromhex(text.removeprefix("0x")))
            except ValueError:
                if not number:
                    remedy = "name it by its height or by its whole hash in hexadecimal"
                    raise NotInStore(f"{text!r} names no block", remedy=remedy) from None
        if found is None:
            tip = self.tip()
            where = "it is empty" if tip is None else f"its tip is {tip.hash.hex()} at height {tip.height}"
            raise NotInStore(f"the chain {self.name} has no block {text}", remedy=f"{where}; a hash is to be given whole")
        return found

    def raw(self, block: StoredBlock) -> bytes:
        """The block's bytes as the chain serialises them. Raises StoreCorrupt where they are not what was stored."""
        return self._body(block, "raw")

    def ir(self, block: StoredBlock) -> bytes:
        """The block's encoded IR. Raises StoreCorrupt likewise."""
        return self._body(block, "ir")

    def decoded(self, block: StoredBlock) -> BlockIR:
        """The block's IR as values, its transactions decoded when asked for. Raises StoreCorrupt likewise."""
        try:
            return decode_block(self.ir(block))
        except ValueError as error:
            raise self._damaged(block.hash, f"its IR cannot be decoded ({error})") from error

    def transaction(self, id_: bytes) -> StoredTransaction:
        """The transaction of this id, in the canonical block that holds it, else in one of another branch.

        Where several canonical blocks hold it (Bitcoin has two such coinbases), the last. Blocks that wait for their parent are
        not looked at. Raises NotInStore.
        """
        found = self._find_transaction(id_, {})
        if found is None:
            raise NotInStore(
                f"the chain {self.name} has no transaction {id_.hex()}",
                remedy="give the whole id as the chain prints it; it may be in a block that is not mirrored yet",
            )
        return found

    def fee(self, transaction: TransactionIR) -> int | None:
        """What the transaction's inputs hold beyond its outputs, in the smallest unit, from the outputs that it spends.

        None for a coinbase, for a transaction without inputs, and where a spent output is not in the store.
        """
        if transaction.coinbase or not transaction.inputs:
            return None
        spent = 0
        with self._store.snapshot():
            cache: dict[int, BlockIR] = {}
            for input_ in transaction.inputs:
                previous = self._find_transaction(input_.previous_id, cache)
                if previous is None or input_.previous_index >= len(previous.transaction.outputs):
                    return None
                spent += previous.transaction.outputs[input_.previous_index].amount
        return spent - sum(output.amount for output in transaction.outputs)

    def output(self, id_: bytes, index: int, cache: dict[int, BlockIR]) -> TransactionOutput | None:
        """One output of a transaction on whatever branch; None where the store does not hold it.

        ``cache``: empty at first; kept by the caller, it saves decoding the same few blocks again.
        """
        found = self._find_transaction(id_, cache)
        if found is None or index >= len(found.transaction.outputs):
            return None
        return found.transaction.outputs[index]

    def events(self, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        """At most ``limit`` of this chain's events with a sequence above ``after``, in order."""
        return events(self._store, self, after, limit)

    def position(self, plugin: str) -> bytes | None:
        """Where this plugin goes on; None: from the beginning."""
        return position(self._store, plugin, self.name)

    def statistics(self) -> ChainStatistics:
        """Counts over the chain's life; takes constant time but for the orphans that wait."""
        with self._store.snapshot() as connection:
            row = connection.execute(
                "SELECT connected, canonical, transactions, bytes, events, reorgs, deepest_reorg FROM chains WHERE id = ?",
                (self._chain,),
            ).fetchone()
            (waiting,) = connection.execute("SELECT count(*) FROM waiting WHERE chain = ?", (self._chain,)).fetchone()
        with decoding(self._store.path):
            connected, canonical, transactions, size, events_, reorgs, deepest = map(int, row)
        return ChainStatistics(connected, waiting, canonical, transactions, size, events_, reorgs, deepest)

    @property
    def id(self) -> int:
        """The store's own number for the chain; meaningless outside this store."""
        return self._chain

    def _block(self, condition: str, *values: int | bytes) -> StoredBlock | None:
        with self._store.snapshot() as connection:
            row = connection.execute(f"{_BLOCK} WHERE {condition}", values).fetchone()
        with decoding(self._store.path):
            return None if row is None else _stored_block(row)

    def _body(self, block: StoredBlock, column: str) -> bytes:
        with self._store.snapshot() as connection:
            row = connection.execute(f"SELECT {column}_checksum, {column} FROM bodies WHERE block = ?", (block.id,)).fetchone()
        if row is None:
            raise self._damaged(block.hash, "its bytes are missing")
        checksum, body = row
        return check_body(self._store, block.hash, checksum, body)

    def _find_transaction(self, id_: bytes, cache: dict[int, BlockIR]) -> StoredTransaction | None:
        if len(id_) != TRANSACTION_ID_BYTES:
            return None
        (prefix,) = transaction_prefixes(id_)
        with self._store.snapshot() as connection:
            rows = connection.execute(
                "WITH RECURSIVE sections(section) AS (SELECT min(section) FROM transactions WHERE chain = ?1 UNION ALL"
                " SELECT (SELECT min(t.section) FROM transactions t WHERE t.chain = ?1 AND t.section > s.section)"
                " FROM sections s WHERE s.section IS NOT NULL)"
                " SELECT t.block, t.position FROM sections s CROSS JOIN transactions t ON t.chain = ?1 AND t.section = s.section"
                " AND t.prefix = ?2 JOIN blocks b ON b.id = t.block ORDER BY b.state <> ?3, b.height DESC, b.id DESC",
                (self._chain, prefix, int(StateCode.CANONICAL)),
            ).fetchall()
            for block_id, position_ in rows:
                block = self._block("b.id = ?", block_id)
                if block is None:
                    continue
                decoded = cache.get(block_id)
                if decoded is None:
                    decoded = cache[block_id] = self.decoded(block)
                    if len(cache) > _DECODED_BLOCKS_KEPT:
                        del cache[next(iter(cache))]
                try:
                    transaction = decoded.transactions[position_]
                except (ValueError, IndexError) as error:
                    raise self._damaged(block.hash, f"its transaction {position_} cannot be decoded ({error})") from error
                if transaction.id == id_:
                    return StoredTransaction(block, position_, transaction)
        return None

    def _damaged(self, hash_: bytes, what: str) -> StoreCorrupt:
        return StoreCorrupt(f"the store {self._store.path} is damaged: block {hash_.hex()}: {what}", remedy=RESTORE)


_CHAIN: Final = (
    "SELECT c.id, c.name, c.family, c.network, c.mode, c.final_depth, c.orphan_limit, c.holes, t.hash, t.height, f.hash, f.height"
    " FROM chains c LEFT JOIN blocks t ON t.id = c.tip LEFT JOIN blocks f ON f.id = c.final"
)


def chains(store: Store) -> list[ChainInfo]:
    """All chains, by name."""
    with store.snapshot() as connection:
        rows = connection.execute(f"{_CHAIN} ORDER BY c.name").fetchall()
    with decoding(store.path):
        return [_chain_info(row) for row in rows]


def resolve_chain(store: Store, name: str) -> ChainReader:
    """The chain of exactly this name. Raises NotInStore, naming those that there are."""
    with store.snapshot() as connection:
        # A name that no encoding holds cannot be that of a chain, and SQLite would not take it.
        known = not any("\ud800" <= character <= "\udfff" for character in name)
        row = connection.execute("SELECT id FROM chains WHERE name = ?", (name,)).fetchone() if known else None
        if row is not None:
            return ChainReader(store, row[0], name)
        names = [known for (known,) in connection.execute("SELECT name FROM chains ORDER BY name LIMIT 20")]
    remedy = f"it has {', '.join(names)}" if names else "it has none yet; fill it with the mirror command"
    raise NotInStore(f"the store {store.path} has no chain {name if known else ascii(name)}", remedy=remedy)


def events(store: Store, chain: ChainReader | None, after: int, limit: int) -> list[StoredEvent]:
    """At most ``limit`` events of one chain, or of all, with a sequence above ``after``, in order."""
    condition, values = ("", ()) if chain is None else ("e.chain = ? AND ", (chain.id,))
    with store.snapshot() as connection:
        rows = connection.execute(
            "SELECT e.sequence, c.name, e.step, b.hash, b.height FROM events e JOIN chains c ON c.id = e.chain"
            f" JOIN blocks b ON b.id = e.block WHERE {condition}e.sequence > ? ORDER BY e.sequence LIMIT ?",
            (*values, min(max(after, 0), HIGHEST_INTEGER), min(max(limit, 0), HIGHEST_INTEGER)),
        ).fetchall()
    with decoding(store.path):
        return [StoredEvent(sequence, name, STEPS[StepCode(step)], BlockRef(*block)) for sequence, name, step, *block in rows]


def position(store: Store, plugin: str, chain: str) -> bytes | None:
    """Where a plugin goes on in a chain; None: from the beginning, also where there is no such chain."""
    with store.snapshot() as connection:
        row: tuple[bytes] | None = connection.execute(
            "SELECT position FROM positions p JOIN chains c ON c.id = p.chain WHERE p.plugin = ? AND c.name = ?", (plugin, chain)
        ).fetchone()
    return None if row is None else row[0]


def state_of(code: int, height: int | None, final_height: int | None) -> BlockState:
    """A block's state, from what its row and its chain's last final block say."""
    if code != StateCode.CANONICAL:
        return _STATES[StateCode(code)]
    settled = final_height is not None and height is not None and height <= final_height
    return BlockState.FINAL if settled else BlockState.CANONICAL


def check_body(store: Store, hash_: bytes, checksum: int, body: object) -> bytes:
    """Gives the body. Raises StoreCorrupt where it is not what was stored: SQLite itself does not notice changed content."""
    if not isinstance(body, bytes) or zlib.crc32(body) != checksum:
        raise StoreCorrupt(f"the store {store.path} is damaged: the bytes of block {hash_.hex()} have changed", remedy=RESTORE)
    return body


def _stored_block(row: tuple[int, bytes, bytes, int | None, bytes, int, int, int, int, int | None]) -> StoredBlock:
    id_, hash_, parent, height, weight, time, transactions, size, state, final_height = row
    return StoredBlock(
        id_, hash_, parent, height, int.from_bytes(weight, "big"), time, transactions, size, state_of(state, height, final_height)
    )


def _chain_info(row: tuple[int, str, str, str, str, int | None, int, int, bytes | None, int, bytes | None, int]) -> ChainInfo:
    _, name, family, network, mode, final_depth, orphan_limit, holes, tip, tip_height, final, final_height = row
    return ChainInfo(
        name,
        family,
        network,
        ForkRules(ForkMode(mode), final_depth, orphan_limit, bool(holes)),
        None if tip is None else BlockRef(tip, tip_height),
        None if final is None else BlockRef(final, final_height),
    )
