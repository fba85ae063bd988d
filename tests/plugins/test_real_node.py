"""bitcoin-blockfiles beside a real bitcoind: what it really does with its files, SIGKILL included."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.nodes.bitcoind import Bitcoind
from tests.plugins.host import ERROR, PluginHost

pytestmark = pytest.mark.nodes

# An output script of 9000 bytes: blocks that a node writes in several steps.
LARGE = "raw(51" + "aa" * 9000 + ")"


def raw_block(node: Bitcoind, block: str) -> bytes:
    return bytes.fromhex(node.rpc("getblock", block, 0))


def until_seen(host: PluginHost, block: bytes) -> None:
    ends = host.ends
    while block not in host.payloads():
        ends += 1
        host.until_idle(ends)


@pytest.mark.parametrize(
    "arguments", [[], ["-blocksxor=0"], ["-blocksxor=0", "-fastprune"]], ids=["default", "plain", "small files"]
)
def test_follows_a_node_through_a_crash(blockfiles: Path, bitcoind_folder: Path, tmp_path: Path, arguments: list[str]) -> None:
    configuration: dict[str, object] = {"blocks_dir": str(tmp_path / "regtest" / "blocks"), "network": "regtest", "follow": True}
    (tmp_path / "regtest" / "blocks").mkdir(parents=True)
    with PluginHost(blockfiles, configuration) as host:
        with Bitcoind(bitcoind_folder, arguments=arguments, data_folder=tmp_path) as node:
            for count, script in [(1, "raw(51)")] * 10 + [(1, LARGE)] * 10 + [(150, "raw(51)")]:
                for block in node.rpc("generatetodescriptor", count, script):
                    until_seen(host, raw_block(node, block))
            # Its index is behind its files now: the next node writes other blocks over these.
            os.kill(int((tmp_path / "regtest" / "bitcoind.pid").read_text()), signal.SIGKILL)
        with Bitcoind(bitcoind_folder, arguments=arguments, data_folder=tmp_path) as node:
            for _ in range(8):
                for block in node.rpc("generatetodescriptor", 3, "raw(52)"):
                    until_seen(host, raw_block(node, block))
            height = node.rpc("getblockcount")
            chain = [raw_block(node, node.rpc("getblockhash", number)) for number in range(height + 1)]
        assert set(chain) <= set(host.payloads())
        assert host.lines(ERROR) == []
    with PluginHost(blockfiles, configuration | {"follow": False}) as fresh:
        assert set(chain) <= set(fresh.until_idle())
