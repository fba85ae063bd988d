"""``chain``: what a store answers equals what the node answered (clause IR1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import SAMPLE_BLOCKS, mirror_sample, supervm

ANSWERS: dict[str, Any] = json.loads((SAMPLE_BLOCKS.parent / "answers.json").read_text())
BLOCKS: list[dict[str, Any]] = ANSWERS["blocks"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chain") / "store.db"
    assert mirror_sample(path).status == 0
    return path


def test_list(store: Path) -> None:
    (row,) = supervm("chain", "list", "--store", store, "--json").json()
    assert row["chain"] == "bitcoin"
    assert (row["family"], row["network"], row["mode"], row["final_depth"]) == ("bitcoin", "regtest", "heaviest", 100)
    assert row["tip"]["hash"] == ANSWERS["getblockchaininfo"]["bestblockhash"]
    assert "regtest" in supervm("chain", "list", "--store", store).out


def test_tip(store: Path) -> None:
    answer = supervm("chain", "tip", "bitcoin", "--store", store, "--json").json()
    assert answer["hash"] == ANSWERS["getblockchaininfo"]["bestblockhash"]
    assert answer["height"] == ANSWERS["getblockchaininfo"]["blocks"]
    assert answer["final"]["height"] == answer["height"] - 101
    assert answer["hash"] in supervm("chain", "tip", "bitcoin", "--store", store).out


@pytest.mark.parametrize("block", BLOCKS, ids=[str(block["height"]) for block in BLOCKS])
def test_block(store: Path, block: dict[str, Any]) -> None:
    by_hash = supervm("chain", "block", "bitcoin", block["hash"], "--store", store, "--json").json()
    assert by_hash["blockHash"] == block["hash"]
    assert by_hash["height"] == block["height"]
    assert by_hash["timestamp"] == block["time"]
    assert by_hash["parentHash"] == block.get("previousblockhash", "00" * 32)
    assert by_hash["txCount"] == block["nTx"]
    assert by_hash["rawSize"] == block["size"]
    identifiers = [tx if isinstance(tx, str) else tx["txid"] for tx in block["tx"]]
    assert by_hash["transactions"] == identifiers
    raw = supervm("chain", "block", "bitcoin", block["hash"], "--store", store, "--raw").out.strip()
    assert len(raw) == 2 * block["size"]
    if block["confirmations"] > 0:
        assert supervm("chain", "block", "bitcoin", block["height"], "--store", store, "--json").json() == by_hash


def test_transactions_with_their_fees(store: Path) -> None:
    shown = 0
    for block in BLOCKS:
        for transaction in block["tx"][:4]:
            if isinstance(transaction, str):
                continue
            answer = supervm("chain", "tx", "bitcoin", transaction["txid"], "--store", store, "--json").json()
            assert answer["txHash"] == transaction["txid"]
            assert answer["witnessHash"] == transaction["hash"]
            assert answer["type"] == "UTXO"
            assert answer["blockHash"] == block["hash"]
            assert [int(output["amount"]) for output in answer["outputs"]] == [
                round(output["value"] * 100_000_000) for output in transaction["vout"]
            ]
            assert [output["address"] for output in answer["outputs"]] == [
                output["scriptPubKey"].get("address", "") for output in transaction["vout"]
            ]
            if "fee" in transaction:
                assert int(answer["fee"]) == round(transaction["fee"] * 100_000_000)
                shown += 1
    assert shown > 0


def test_events_page_by_sequence(store: Path) -> None:
    everything = supervm("chain", "events", "bitcoin", "--store", store, "--json").lines()
    assert [event["sequence"] for event in everything] == sorted({event["sequence"] for event in everything})
    first = supervm("chain", "events", "bitcoin", "--store", store, "--limit", 7, "--json").lines()
    assert first == everything[:7]
    second = supervm("chain", "events", "bitcoin", "--store", store, "--after", first[-1]["sequence"], "--limit", 5, "--json")
    assert second.lines() == everything[7:12]
    assert supervm("chain", "events", "bitcoin", "--store", store, "--after", 10**15, "--json").out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tip", "dogecoin"], "has no chain dogecoin: it has bitcoin"),
        (["block", "bitcoin", "100000"], "no block 100000"),
        (["block", "bitcoin", "xyz"], "'xyz' names no block"),
        (["block", "bitcoin", "ab" * 32], "no block " + "ab" * 32),
        (["tx", "bitcoin", "ab" * 32], "no transaction"),
        (["tx", "bitcoin", "xyz"], "names no transaction"),
    ],
)
def test_what_is_not_there_is_said(store: Path, arguments: list[str], says: str) -> None:
    ran = supervm("chain", *arguments, "--store", store)
    assert ran.status == 1
    assert says in ran.err
    assert ran.out == ""


def test_a_store_that_is_none(tmp_path: Path) -> None:
    ran = supervm("chain", "list", "--store", tmp_path / "none.db")
    assert ran.status == 1
    assert "there is no store at" in ran.err
    other = tmp_path / "letter.txt"
    other.write_text("Dear all,\n" * 1000)
    ran = supervm("chain", "list", "--store", other)
    assert ran.status == 1
    assert "letter.txt" in ran.err
    assert other.read_text() == "Dear all,\n" * 1000
