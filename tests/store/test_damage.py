"""Whatever bytes of a store are overwritten: an error that an operator can read, or an answer, never a crash."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from supervm_rt.chain.types import ForkRules
from supervm_rt.errors import NotInStore, StoreCorrupt, StoreTooNew
from supervm_rt.model.chain import ForkMode
from supervm_rt.store import Store, digest
from tests.store.support import PLUGIN, REGTEST, bitcoin_block, bitcoin_id, coinbase, dev_mirror, mixed_inputs

RULES = ForkRules(ForkMode.HEAVIEST, final_depth=5, orphan_limit=50)
INPUTS = mixed_inputs(1, 120)
SPENT = coinbase(1, 50)


def read_everything(path: Path) -> None:
    with Store.open(path, read_only=True) as store:
        for chain in store.chains():
            reader = store.chain(chain.name)
            reader.statistics()
            reader.events()
            reader.position(PLUGIN)
            for height in range(30):
                found = reader.block_at(height)
                if found is not None:
                    reader.raw(found)
            digest(store, chain.name)
        bitcoin = store.chain("btc")
        bitcoin.fee(bitcoin.transaction(bitcoin_id(SPENT)).transaction)


def go_on(path: Path) -> None:
    with Store.open(path) as store:
        dev_mirror(store, RULES).apply(PLUGIN, INPUTS[80:])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "chain.store"
    with Store.open(path) as store:
        genesis = REGTEST.genesis_hash or b""
        store.mirror("btc", translator=REGTEST, rules=RULES).apply(PLUGIN, [bitcoin_block(genesis, [SPENT])])
        dev_mirror(store, RULES).apply(PLUGIN, INPUTS[:80])
    return path.read_bytes()


def test_overwritten_bytes_never_crash(tmp_path: Path, whole: bytes) -> None:
    refused = 0
    for seed in range(150):
        random = Random(seed)
        data = bytearray(whole)
        for _ in range(random.choice([1, 4, 40])):
            place, length = random.randrange(len(data) - 64), random.choice([1, 8, 64])
            data[place : place + length] = random.choice([random.randbytes(length), bytes(length)])
        path = tmp_path / f"{seed}.store"
        for action in (read_everything, go_on):
            path.write_bytes(data)
            try:
                action(path)
            except (StoreCorrupt, StoreTooNew, NotInStore):
                refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("old", "new"), [(b"    network TEXT", b"    netwark TEXT"), (b"prefix INTEGER NOT", b"prefix INTEGERR NO")]
)
def test_tables_that_were_never_made_are_damage(tmp_path: Path, whole: bytes, old: bytes, new: bytes) -> None:
    path = tmp_path / "chain.store"
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    for read_only in (True, False):
        with pytest.raises(StoreCorrupt, match="tables"):
            Store.open(path, read_only=read_only)


@pytest.mark.parametrize("part", ["UPDATE blocks SET state = 9", "UPDATE events SET step = 7", "UPDATE blocks SET weight = NULL"])
def test_values_that_were_never_written_are_damage(tmp_path: Path, whole: bytes, part: str) -> None:
    path = tmp_path / "chain.store"
    path.write_bytes(whole)
    with Store.open(path) as store, store.transaction() as connection:
        connection.execute(part.replace("NULL", "5"))
    with pytest.raises(StoreCorrupt, match=str(path)):
        read_everything(path)
