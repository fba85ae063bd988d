"""The example of docs/consuming.md: equal to a walk over the canonical chain, through reorgs and kills."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supervm_rt.ir.addresses import address_of
from supervm_rt.store import Store
from tests.feed.killed import RULES, inputs_of
from tests.store.support import PLUGIN, environment

EXAMPLE = Path(__file__).parents[2] / "examples/balances/balances.py"


def command(store: Path, database: Path, *more: str) -> list[str]:
    return [sys.executable, str(EXAMPLE), "--store", str(store), "--database", str(database), *more]


def balances_of(database: Path) -> dict[str, int]:
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT address, sum(amount) FROM unspent WHERE address IS NOT NULL GROUP BY address").fetchall()
    connection.close()
    return dict(rows)


def walked(store: Path) -> dict[str, int]:
    """From the canonical chain alone."""
    outputs: dict[tuple[bytes, int], tuple[str | None, int]] = {}
    with Store.open(store, read_only=True) as opened:
        chain = opened.chain("bitcoin")
        tip = chain.tip()
        assert tip is not None
        for height in range(1, tip.height + 1):
            block = chain.block_at(height)
            assert block is not None
            for transaction in chain.decoded(block).transactions:
                for spent in transaction.inputs:
                    outputs.pop((spent.previous_id, spent.previous_index), None)
                for place, output in enumerate(transaction.outputs):
                    outputs[transaction.id, place] = (address_of(output.script, "regtest"), output.amount)
    totals: dict[str, int] = {}
    for address, amount in outputs.values():
        if address is not None:
            totals[address] = totals.get(address, 0) + amount
    return totals


@pytest.mark.parametrize("kills", [0, 6])
def test_balances_are_those_of_the_canonical_chain(tmp_path: Path, kills: int) -> None:
    store, database = tmp_path / "chain.store", tmp_path / "balances.db"
    translator, inputs = inputs_of("sample", 0)
    assert translator is not None
    with Store.open(store) as opened:
        mirror = opened.mirror("bitcoin", translator=translator, rules=RULES)
        mirror.apply(PLUGIN, inputs[:10])
        step = len(inputs) // (kills + 1) + 1
        for at in range(10, len(inputs), step):
            follower = subprocess.Popen(command(store, database, "--follow"), env=environment())
            for place in range(at, min(at + step, len(inputs)), 5):
                mirror.apply(PLUGIN, inputs[place : min(place + 5, at + step)])
                time.sleep(0.01)
            follower.send_signal(signal.SIGKILL)
            follower.wait()
    done = subprocess.run(command(store, database), env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = balances_of(database)
    assert found == walked(store)
    assert len(found) > 10
    address, amount = max(found.items(), key=lambda item: item[1])
    shown = subprocess.run(
        [sys.executable, str(EXAMPLE), "--database", str(database), "--show", address],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"{amount}\n"


def test_it_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path / "none", tmp_path / "b.db"), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "there is no store" in done.stderr
    assert "Traceback" not in done.stderr
