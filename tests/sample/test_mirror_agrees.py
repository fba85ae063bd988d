"""The sample chain, mirrored by the shipped plugin through the command line, ends as the node that wrote it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.runtime_process import ask, ask_lines, mirror_all

pytestmark = pytest.mark.unsanitized  # the plugin runs in a sandbox, where no sanitizer can

SAMPLE = Path(__file__).parents[2] / "src" / "supervm_rt" / "demo" / "sample-chain"


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SAMPLE / "answers.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mirrored") / "sample.db"


@pytest.fixture(scope="module")
def summary(store: Path) -> dict[str, Any]:
    return mirror_all(SAMPLE / "blocks", store)


def test_summary(summary: dict[str, Any], answers: dict[str, Any]) -> None:
    tip = answers["chain"][-1]
    assert summary["tip"] == {"hash": tip["hash"], "height": tip["height"]}
    assert (summary["reorgs"], summary["deepest_reorg"]) == (len(answers["reorgs"]), 6)
    assert summary["blocks"] == len(answers["steps"]) + 1, "side branches and the genesis block included"
    assert summary["rejected"] == []


@pytest.mark.usefixtures("summary")
def test_events_are_the_moves_of_the_tip_of_the_node(store: Path, answers: dict[str, Any]) -> None:
    """Where the node's tip was after each block, our events lead too, in the same order."""
    tips = [answers["chain"][0]["hash"]]
    tips += [step["tip"] for step in answers["steps"] if step["tip"] != answers["chain"][0]["hash"]]
    expected = [tip for index, tip in enumerate(tips) if not index or tip != tips[index - 1]]
    canonical: list[str] = []
    passed: list[str] = []
    for event in ask_lines("chain", "events", "bitcoin", "--store", str(store)):
        if event["step"] == "new":
            canonical.append(event["hash"])
            passed.append(event["hash"])
        elif event["step"] == "undo":
            assert canonical.pop() == event["hash"]
    assert canonical == [entry["hash"] for entry in answers["chain"]]
    rest = iter(passed)
    assert all(tip in rest for tip in expected)


@pytest.mark.usefixtures("summary")
def test_blocks_and_transactions(store: Path, answers: dict[str, Any]) -> None:
    said = answers["blocks"][4]
    block = ask("chain", "block", "bitcoin", str(said["height"]), "--store", str(store))
    assert (block["blockHash"], block["height"], block["txCount"]) == (said["hash"], said["height"], said["nTx"])
    transaction = said["tx"][-1]
    shown = ask("chain", "tx", "bitcoin", transaction["txid"], "--store", str(store))
    assert shown["txHash"] == transaction["txid"]
    assert shown["blockHash"] == said["hash"]
    assert int(shown["fee"]) == round(transaction["fee"] * 100_000_000)
    assert [output["address"] for output in shown["outputs"]] == [
        output["scriptPubKey"].get("address", "") for output in transaction["vout"]
    ]
