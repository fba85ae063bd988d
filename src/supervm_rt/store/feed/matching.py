"""Finds the transactions of a block that a subscription asks for."""

from __future__ import annotations

from typing import Final

from supervm_rt.errors import ConfigurationError, StoreCorrupt
from supervm_rt.ir.addresses import AddressError, script_of
from supervm_rt.ir.spends import Spends
from supervm_rt.model.ir import BlockIR, TransactionIR
from supervm_rt.store.faults import RESTORE
from supervm_rt.store.feed.events import Transactions
from supervm_rt.store.queries import ChainReader

ID_BYTES: Final = 32
"""Of a Bitcoin transaction."""


class Matcher:
    """The filter of one chain. Spent outputs are looked up in the store; those that it does not hold match nothing."""

    def __init__(self, reader: ChainReader, wanted: Transactions) -> None:
        """Raises ConfigurationError for an address that is none of the chain's network, and for an id that none can have."""
        info = reader.info()
        scripts = set(wanted.scripts)
        for address in wanted.addresses:
            if info.family != "bitcoin":
                raise ConfigurationError(
                    f"the chain {info.name} ({info.family}) has no addresses", remedy="leave out the address"
                )
            try:
                scripts.add(script_of(address, info.network))
            except AddressError as error:
                raise ConfigurationError(str(error), remedy="give an address as the chain prints it") from None
        for id_ in wanted.ids:
            if info.family == "bitcoin" and len(id_) != ID_BYTES:
                raise ConfigurationError(
                    f"{id_.hex()} is no transaction id: it has {len(id_)} bytes, not {ID_BYTES}",
                    remedy="give the whole id as the chain prints it",
                )
        self._scripts = frozenset(scripts)
        self._ids = frozenset(wanted.ids)
        self._spends = Spends(scripts)

    def match(self, reader: ChainReader, ir: bytes, block: BlockIR, cache: dict[int, BlockIR]) -> tuple[TransactionIR, ...]:
        """``ir``: the block's encoded form, in which each script and id stands as it is. ``cache``: as of ``ChainReader.output``;
        for one page, since a consumer that does not come back must not hold blocks by it."""
        try:
            pays = any(script in ir for script in self._scripts)
            named = any(id_ in ir for id_ in self._ids)
            if not self._scripts and not named:
                return ()
            return tuple(
                transaction
                for transaction in block.transactions
                if (named and transaction.id in self._ids)
                or (pays and any(output.script in self._scripts for output in transaction.outputs))
                or (self._scripts and self._spent(reader, transaction, cache))
            )
        except ValueError as error:
            raise StoreCorrupt(
                f"the block {block.hash.hex()} of the chain {reader.name} cannot be decoded ({error})", remedy=RESTORE
            ) from error

    def _spent(self, reader: ChainReader, transaction: TransactionIR, cache: dict[int, BlockIR]) -> bool:
        if transaction.coinbase:
            return False
        for input_ in transaction.inputs:
            if self._spends.possible(input_):
                output = reader.output(input_.previous_id, input_.previous_index, cache)
                if output is not None and output.script in self._scripts:
                    return True
        return False
