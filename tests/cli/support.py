"""The command line as a user has it: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SAMPLE_BLOCKS = ROOT / "src/supervm_rt/demo/sample-chain/blocks"
BLOCKFILES = ROOT / "plugins/bitcoin-blockfiles"
HELLO = ROOT / "plugins/hello"


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The last line of the output."""
        return json.loads(self.out.splitlines()[-1])

    def lines(self) -> list[Any]:
        """Every line of the output."""
        return [json.loads(line) for line in self.out.splitlines()]


def command(*arguments: object) -> list[str]:
    """The command line as a list."""
    return [sys.executable, "-m", "supervm_rt", *map(str, arguments)]


def supervm(*arguments: object, cwd: Path | None = None, stdin: str = "", environment: dict[str, str] | None = None) -> Ran:
    """Runs one command to its end. No traceback ever reaches a user."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def mirror_sample(store: Path, *more: object) -> Ran:
    """Mirrors the sample chain, the summary as JSON."""
    return supervm(*mirror_arguments(store, SAMPLE_BLOCKS, "regtest"), "--until-idle", "--json", *more)


def mirror_arguments(store: Path, blocks: Path, network: str) -> Sequence[object]:
    """The arguments that mirror a folder of block files."""
    return (
        "mirror",
        "--plugin",
        BLOCKFILES,
        "--set",
        f"blocks_dir={blocks}",
        "--set",
        f"network={network}",
        "--policy",
        "dev",
        "--store",
        store,
    )
