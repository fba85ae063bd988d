"""``run``: a node from a configuration file, and what the command line adds to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.cli.support import ROOT, command, supervm


def test_a_node_that_no_plugin_could_ever_be_in_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text("store: s.db\npolicy: dev\n")
    ran = supervm("run", config)
    assert ran.status != 0
    assert f"{config}: no plugin could ever be in this node" in ran.err
    assert "--listen" in ran.err
    assert not (tmp_path / "s.db").exists()


def test_it_may_listen_by_the_command_line_alone(tmp_path: Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text("store: s.db\npolicy: dev\n")
    address = f"unix:{tmp_path / 'n'}"
    with subprocess.Popen(
        command("run", config, "--listen", address, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as node:
        try:
            assert node.stderr is not None
            line = ""
            while "gRPC on" not in line:
                line = node.stderr.readline()
                assert line, "the node ended"
            with subprocess.Popen([sys.executable, str(ROOT / "examples/remote/ten_blocks.py"), address]) as plugin:
                try:
                    while "all ten blocks are sent" not in line:
                        line = node.stderr.readline()
                        assert line, "the node ended"
                    node.send_signal(signal.SIGTERM)
                    assert plugin.wait(timeout=30) == 0
                finally:
                    plugin.kill()
            assert node.wait(timeout=30) == 0
        finally:
            node.kill()
    tip = supervm("chain", "tip", "dev", "--store", tmp_path / "s.db", "--json")
    assert tip.json()["height"] == 10
