"""Stores of every released version of the schema are brought up to date, and say what they said."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from supervm_rt.errors import StoreError
from supervm_rt.store import Store, digest
from supervm_rt.store.schema import MIGRATIONS, SCHEMA_VERSION
from tests.feed.support import Rebuilt, consumer, log_of, read_all, told
from tests.store.support import CHAIN, PLUGIN, dev_mirror, fill, line

RELEASED = Path(__file__).parent / "released"
DIGESTS = {1: "67178390c0095e7f9161aef9fa720e5efc518b0affbb931cf7a20f2bb6200761"}


@pytest.fixture(params=sorted(DIGESTS))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Path]:
    path = tmp_path / "chain.store"
    path.write_bytes(gzip.decompress((RELEASED / f"{request.param}.store.gz").read_bytes()))
    return request.param, path


def test_there_is_a_store_of_every_version_that_is_older() -> None:
    assert sorted(DIGESTS) == sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))


def test_an_old_store_goes_on(old: tuple[int, Path]) -> None:
    version, path = old
    with pytest.raises(StoreError, match=f"older version {version}"):
        Store.open(path, read_only=True)
    with Store.open(path) as store:
        assert digest(store, CHAIN).hex == DIGESTS[version]
        events = read_all(consumer(store), store)
        assert told(events) == log_of(store)
        assert all(event.committed for event in events)
        dev_mirror(store).apply(PLUGIN, line("n1 n2", "w2", 12))
        rebuilt = Rebuilt()
        rebuilt.apply(events)
        rebuilt.apply(read_all(consumer(store, events[-1].cursor), store))
        rebuilt.assert_equals(store)
    with Store.open(path, read_only=True) as store:
        assert consumer(store, events[3].cursor).read(store).events


def test_a_migrated_store_has_the_tables_of_a_new_one(old: tuple[int, Path], tmp_path: Path) -> None:
    fill(tmp_path / "new.store", line("a", "before", 0))
    Store.open(old[1]).close()

    def tables(path: Path) -> list[tuple[str, str]]:
        connection = sqlite3.connect(path)
        rows = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
        connection.close()
        return rows

    assert tables(old[1]) == tables(tmp_path / "new.store")
