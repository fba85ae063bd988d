"""Keeps the balance of every Bitcoin address in a SQLite database of its own, right through reorgs and kills.

Usage: ``balances.py --store FILE --database FILE [--chain NAME] [--follow]``; ``balances.py --database FILE --show ADDRESS``.

Each batch of events is applied in one transaction, together with the cursor behind it. So after a kill at any moment the database
is as of some event, and the cursor in it goes on with exactly the next one.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Iterable

import trio

import supervm_rt
from supervm_rt import FeedEvent, Step
from supervm_rt.ir.addresses import address_of

TABLES = """
CREATE TABLE IF NOT EXISTS unspent (
    transaction_id BLOB, place INTEGER, amount INTEGER NOT NULL, address TEXT, PRIMARY KEY (transaction_id, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unspent_by_address ON unspent (address);
-- What blocks that can still be undone have spent.
CREATE TABLE IF NOT EXISTS spent (
    transaction_id BLOB, place INTEGER, amount INTEGER NOT NULL, address TEXT, block BLOB NOT NULL,
    PRIMARY KEY (transaction_id, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS spent_by_block ON spent (block);
CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY CHECK (id = 1), cursor TEXT NOT NULL);
"""


class Balances:
    """The database: unspent outputs, and the cursor of the last event that went into them."""

    def __init__(self, path: str, network: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript("PRAGMA journal_mode = WAL;" + TABLES)
        self._network = network

    def close(self) -> None:
        """Ends it."""
        self._connection.close()

    @property
    def cursor(self) -> str | None:
        """Where to go on; None: from the beginning."""
        row = self._connection.execute("SELECT cursor FROM place").fetchone()
        return None if row is None else str(row[0])

    def balance(self, address: str) -> int:
        """In satoshis."""
        query = "SELECT coalesce(sum(amount), 0) FROM unspent WHERE address = ?"
        return int(self._connection.execute(query, (address,)).fetchone()[0])

    def balances(self) -> dict[str, int]:
        """Of every address that has one."""
        query = "SELECT address, sum(amount) FROM unspent WHERE address IS NOT NULL GROUP BY address"
        return dict(self._connection.execute(query).fetchall())

    def apply(self, events: Iterable[FeedEvent]) -> None:
        """Applies events and keeps the cursor behind the last, in one transaction."""
        with self._connection:
            self._connection.execute("BEGIN")
            cursor = ""
            for event in events:
                match event.step:
                    case Step.NEW:
                        self._add(event)
                    case Step.UNDO:
                        self._take_back(event)
                    case Step.FINAL:
                        # Never undone from here on: what it spent need not be remembered.
                        self._connection.execute("DELETE FROM spent WHERE block = ?", (event.block.hash,))
                cursor = event.cursor
            self._connection.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (cursor,))

    def _add(self, event: FeedEvent) -> None:
        assert event.ir is not None
        if event.block.height == 0:
            return  # by an old mistake that became a rule, the first coinbase can never be spent
        for transaction in event.ir.transactions:
            if not transaction.coinbase:
                spends = [(spent.previous_id, spent.previous_index) for spent in transaction.inputs]
                self._connection.executemany(
                    "INSERT INTO spent SELECT transaction_id, place, amount, address, ?3 FROM unspent"
                    " WHERE transaction_id = ?1 AND place = ?2",
                    [(*outpoint, event.block.hash) for outpoint in spends],
                )
                self._connection.executemany("DELETE FROM unspent WHERE transaction_id = ? AND place = ?", spends)
            self._connection.executemany(
                # A coinbase of early 2010 came twice: the second took the place of the first.
                "INSERT OR REPLACE INTO unspent VALUES (?, ?, ?, ?)",
                [
                    (transaction.id, place, output.amount, address_of(output.script, self._network))
                    for place, output in enumerate(transaction.outputs)
                    if output.script[:1] != b"\x6a" and len(output.script) <= 10_000  # else nobody can ever spend it
                ],
            )

    def _take_back(self, event: FeedEvent) -> None:
        """The same backwards."""
        assert event.ir is not None
        for transaction in reversed(event.ir.transactions):
            self._connection.execute("DELETE FROM unspent WHERE transaction_id = ?", (transaction.id,))
            if not transaction.coinbase:
                spends = [(spent.previous_id, spent.previous_index) for spent in transaction.inputs]
                self._connection.executemany(
                    "INSERT INTO unspent SELECT transaction_id, place, amount, address FROM spent"
                    " WHERE transaction_id = ? AND place = ?",
                    spends,
                )
                self._connection.executemany("DELETE FROM spent WHERE transaction_id = ? AND place = ?", spends)


async def keep(store: str, chain: str, database: str, *, follow: bool) -> None:
    """Applies all that the store has, and what comes, where it is to follow."""
    with supervm_rt.Store.open(store, read_only=True) as opened:
        network = opened.chain(chain).info().network
    balances = Balances(database, network)
    try:
        async with supervm_rt.open_feed(store) as feed:
            subscription = feed.subscribe(chain, cursor=balances.cursor, ir=True, follow=follow)
            while events := await subscription.batch():
                balances.apply(events)
    finally:
        balances.close()


def main() -> int:
    """0: done; 1: failed; 2: called wrongly."""
    parser = argparse.ArgumentParser(prog="balances", description="Keeps the balances of a mirrored Bitcoin chain.")
    parser.add_argument("--store", help="the mirror")
    parser.add_argument("--database", required=True, help="where the balances are kept")
    parser.add_argument("--chain", default="bitcoin")
    parser.add_argument("--follow", action="store_true", help="wait for more at the end")
    parser.add_argument("--show", metavar="ADDRESS")
    options = parser.parse_args()
    if options.show is not None:
        balances = Balances(options.database, "")
        print(balances.balance(options.show))
        balances.close()
        return 0
    if options.store is None:
        parser.error("--store is needed, or --show")
    try:
        trio.run(lambda: keep(options.store, options.chain, options.database, follow=options.follow))
    except supervm_rt.SuperVMError as error:
        print(f"balances: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
