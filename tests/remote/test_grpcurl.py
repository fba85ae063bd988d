"""The session with grpcurl in docs/remote.md is what comes of its commands (clauses X2, R1, R2)."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.remote.support import serving

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build/examples/.go"
SOCKET = "/run/supervm/node.sock"
pytestmark = pytest.mark.nodes


def session() -> list[tuple[str, str]]:
    """(command, what it prints) of the page."""
    text = (ROOT / "docs/remote.md").read_text()
    found = re.search(r"```console\n(\$ grpcurl .*?)```", text, re.DOTALL)
    assert found is not None
    steps = []
    for step in found[1].removeprefix("$ ").split("\n$ "):
        lines = step.splitlines()
        end = (
            next(number for number, line in enumerate(lines) if "supervm.plugin.PluginHost" in line or "grpc.health" in line) + 1
        )
        steps.append(("\n".join(lines[:end]), "\n".join(lines[end:])))
    return steps


def said(text: str) -> list[Any]:
    """JSON values, one behind another, without what differs each time."""
    found = []
    decoder, place = json.JSONDecoder(), 0
    while place < len(text) and text[place] == "{":
        value, place = decoder.raw_decode(text, place)
        place += len(text[place:]) - len(text[place:].lstrip())
        found.append({key: each for key, each in value.items() if key not in {"sessionToken", "cursor"}})
    return found


def test_the_page_shows_what_is_printed(tmp_path: Path) -> None:
    steps = session()
    assert len(steps) == 4

    async def main() -> None:
        async with serving(tmp_path) as node, trio.open_nursery() as nursery:
            script = ROOT / "examples/remote/ten_blocks.py"
            nursery.start_soon(trio.run_process, [sys.executable, str(script), f"unix:{node.path}"])
            with trio.fail_after(60):
                while "dev" not in node.runtime.chains or (tip := node.runtime.chains["dev"].tip) is None or tip.height != 10:
                    await trio.sleep(0.01)
            for command, printed in steps:
                done = await trio.run_process(
                    ["bash", "-c", command.replace(SOCKET, str(node.path))],
                    capture_stdout=True,
                    env=os.environ | {"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"},
                )
                got = done.stdout.decode().strip()
                if printed.startswith("{"):
                    wanted = said(printed)
                    assert wanted
                    assert said(got)[: len(wanted)] == wanted, command
                else:
                    assert got == printed
            await node.runtime.stop("org.example.ten-blocks")

    trio.run(main)
