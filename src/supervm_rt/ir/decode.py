"""Encoded IR back to values, a transaction at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

from supervm_rt.ir.columns import Columns, ColumnsError
from supervm_rt.ir.schemas import NEUTRAL_BLOCK
from supervm_rt.model.ir import BlockIR, TransactionInput, TransactionIR, TransactionOutput


def decode_block(ir: bytes) -> BlockIR:
    """The block of encoded IR. Its transactions are decoded when they are asked for.

    Raises ColumnsError where the bytes are no container or not one of a block.
    """
    columns = Columns.decode(ir)
    if columns.rows.get("block") != 1:
        raise ColumnsError("not the IR of one block")
    transactions = LazyTransactions(columns) if "transaction" in columns.tables else ()
    if columns.integers("block", "transaction_count")[0] != len(transactions):
        raise ColumnsError("the number of transactions is not what the block says")
    header = {name: column[0] for name, column in columns.tables["block"].items() if name not in NEUTRAL_BLOCK}
    return BlockIR(
        family=columns.family,
        hash=columns.fixed("block", "id")[0],
        parent=columns.fixed("block", "parent")[0],
        time=columns.integers("block", "time")[0],
        transactions=transactions,
        header=_values(header),
    )


def _values(header: Mapping[str, int | bytes | range]) -> dict[str, int | bytes]:
    values = {name: value for name, value in header.items() if not isinstance(value, range)}
    if len(values) != len(header):
        raise ColumnsError("the table of the block has children of its own")
    return values


class LazyTransactions(Sequence[TransactionIR]):
    """The transactions of a block, decoded one by one."""

    def __init__(self, columns: Columns) -> None:
        """Raises ColumnsError where columns are missing or of another kind."""
        self._length = columns.rows["transaction"]
        self._id = columns.fixed("transaction", "id", 32)
        # Left out where no transaction of the block has a witness.
        has_witness = columns.has("transaction", "witness_id")
        self._witness_id = columns.fixed("transaction", "witness_id", 32) if has_witness else self._id
        self._version = columns.integers("transaction", "version")
        self._lock_time = columns.integers("transaction", "lock_time")
        self._size = columns.integers("transaction", "size")
        self._weight = columns.integers("transaction", "weight")
        self._offset = columns.integers("transaction", "offset")
        self._inputs = columns.children("transaction", "input")
        self._outputs = columns.children("transaction", "output")
        self._previous_id = columns.fixed("input", "previous_id", 32)
        self._previous_index = columns.integers("input", "previous_index")
        self._sequence = columns.integers("input", "sequence")
        self._input_script = columns.binary("input", "script")
        self._witness = columns.children("input", "witness") if columns.has("input", "witness") else None
        self._witness_item = columns.binary("witness", "item") if self._witness is not None else None
        self._amount = columns.integers("output", "amount")
        self._output_script = columns.binary("output", "script")

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> TransactionIR: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[TransactionIR, ...]: ...
    def __getitem__(self, place: int | slice) -> TransactionIR | tuple[TransactionIR, ...]:
        """One transaction, or a tuple of some. Raises IndexError as a list does."""
        if isinstance(place, slice):
            return tuple(self._decode(position) for position in range(self._length)[place])
        return self._decode(range(self._length)[place])

    def __iter__(self) -> Iterator[TransactionIR]:
        return map(self._decode, range(self._length))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # compared by value, and too large to be a key

    def _decode(self, position: int) -> TransactionIR:
        return TransactionIR(
            id=self._id[position],
            witness_id=self._witness_id[position],
            position=position,
            version=self._version[position],
            lock_time=self._lock_time[position],
            size=self._size[position],
            weight=self._weight[position],
            offset=self._offset[position],
            inputs=tuple(self._input(row) for row in self._inputs[position]),
            outputs=tuple(TransactionOutput(self._amount[row], self._output_script[row]) for row in self._outputs[position]),
        )

    def _input(self, row: int) -> TransactionInput:
        witness: tuple[bytes, ...] = ()
        if self._witness is not None and self._witness_item is not None:
            witness = tuple(self._witness_item[item] for item in self._witness[row])
        return TransactionInput(
            self._previous_id[row], self._previous_index[row], self._sequence[row], self._input_script[row], witness
        )
