"""The scripts that fetch the node and make the sample chain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "src" / "supervm_rt" / "demo" / "sample-chain"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=100, check=False)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_fetch_leaves_foreign_files_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = run(ROOT / "tools" / "fetch-bitcoind", tmp_path)
    assert done.returncode == 1
    assert "holds files that this script did not make: name an empty or a new folder" in done.stderr
    assert files(tmp_path) == {"mine.txt": b"mine"}


def test_fetch_wants_one_folder() -> None:
    done = run(ROOT / "tools" / "fetch-bitcoind")
    assert (done.returncode, done.stderr) == (2, "usage: fetch-bitcoind DIR\n")


@pytest.mark.nodes
def test_the_sample_chain_can_be_made_again(bitcoind_folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "sample-chain"
    done = run(sys.executable, ROOT / "tools" / "make-sample-chain", bitcoind_folder, "--output", made)
    assert done.returncode == 0, done.stderr
    kept = json.loads((SAMPLE / "answers.json").read_text())
    again = json.loads((made / "answers.json").read_text())
    if again["version"] == kept["version"]:
        assert files(made) == files(SAMPLE)
    else:
        # Another version may mine other bytes, of the same kind.
        assert [reorg["depth"] for reorg in again["reorgs"]] == [reorg["depth"] for reorg in kept["reorgs"]]
        assert again["output_types"].keys() == kept["output_types"].keys()


def test_make_sample_chain_says_what_is_missing(tmp_path: Path) -> None:
    done = run(sys.executable, ROOT / "tools" / "make-sample-chain", tmp_path / "nowhere")
    assert done.returncode == 1
    assert f"no bitcoind in {tmp_path / 'nowhere'}: run tools/fetch-bitcoind" in done.stderr
