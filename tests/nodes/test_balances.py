"""The example that keeps balances, beside what a real bitcoind says of every address, after reorgs that undo spends."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from supervm_rt.ir.addresses import address_of
from supervm_rt.model.chain import Step
from supervm_rt.store import Store
from tests.examples.test_balances import EXAMPLE, balances_of
from tests.nodes.agreement import satoshis
from tests.nodes.bitcoind import Bitcoind
from tests.nodes.runtime_process import Follower
from tests.store.support import environment

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(300)]

ANYONE = b"\x51"
"""A script that anyone can spend, behind its hash."""
GUARD = b"\x00\x20" + hashlib.sha256(ANYONE).digest()


def spend(outpoint: tuple[str, int], outputs: list[tuple[int, bytes]]) -> tuple[str, str]:
    """A transaction that spends an output of anyone's; raw in hexadecimal, and its id."""
    previous = bytes.fromhex(outpoint[0])[::-1] + struct.pack("<I", outpoint[1])
    body = b"\x01" + previous + b"\x00" + b"\xff" * 4 + bytes((len(outputs),))
    for amount, script in outputs:
        body += struct.pack("<q", amount) + bytes((len(script),)) + script
    witness = b"\x01" + bytes((len(ANYONE),)) + ANYONE
    raw = struct.pack("<i", 2) + b"\x00\x01" + body + witness + bytes(4)
    stripped = struct.pack("<i", 2) + body + bytes(4)
    return raw.hex(), hashlib.sha256(hashlib.sha256(stripped).digest()).digest()[::-1].hex()


def to(name: str) -> bytes:
    return b"\x00\x14" + hashlib.sha256(name.encode()).digest()[:20]


def ever_used(store: Path) -> list[str]:
    """Every address of every block, undone ones included."""
    found: set[str | None] = set()
    with Store.open(store, read_only=True) as opened:
        chain = opened.chain("bitcoin")
        for event in chain.events(limit=100_000):
            block = chain.block_by_hash(event.block.hash)
            if event.step is Step.NEW and block is not None:
                for transaction in chain.decoded(block).transactions:
                    found |= {address_of(output.script, "regtest") for output in transaction.outputs}
    return sorted(address for address in found if address is not None)


def test_balances_are_what_the_node_says(bitcoind_folder: Path, tmp_path: Path) -> None:
    store, database = tmp_path / "live.db", tmp_path / "balances.db"
    command = [sys.executable, str(EXAMPLE), "--store", str(store), "--database", str(database)]
    with Bitcoind(bitcoind_folder) as node, Follower(node.blocks_folder, store, tmp_path / "runtime.log") as runtime:
        descriptor = node.rpc("getdescriptorinfo", f"raw({GUARD.hex()})")["descriptor"]
        rich = [node.rpc("generateblock", descriptor, [])["hash"] for _ in range(108)]
        coins = [(node.rpc("getblock", hash_)["tx"][0], 0) for hash_ in rich[:6]]
        value = 50 * 10**8
        runtime.wait_for_tip(node.tip().hash)
        consumer = subprocess.Popen([*command, "--follow"], env=environment())
        try:
            first, first_id = spend(coins[0], [(value // 2, to("a")), (value // 2 - 1000, GUARD)])
            second, _ = spend((first_id, 1), [(value // 4, to("b")), (value // 4 - 2000, to("a"))])
            node.mine(3, [first, second])
            node.mine(2, [spend(coins[1], [(value - 1000, to("c"))])[0]])
            runtime.wait_for_tip(node.tip().hash)

            # The spends are undone; one of the coins is then spent to somebody else.
            node.reorg(5)
            node.mine(1, [spend(coins[0], [(value - 5000, to("d"))])[0]])
            runtime.wait_for_tip(node.tip().hash)

            consumer.kill()
            consumer.wait()
            runtime.kill()
            node.mine(2, [spend(coins[2], [(1000, to("e")), (value - 9000, GUARD)])[0]])
            node.reorg(3)
            runtime.start()
            consumer = subprocess.Popen([*command, "--follow"], env=environment())
            node.mine(2, [spend(coins[1], [(7, b"\x6a"), (value - 1000, to("c"))])[0], first])
            runtime.wait_for_tip(node.tip().hash)
        finally:
            consumer.kill()
            consumer.wait()
        assert runtime.stop() == 0
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        addresses = ever_used(store)
        scanned = node.rpc("scantxoutset", "start", [f"addr({address})" for address in addresses])
    said: dict[str, int] = {}
    for output in scanned["unspents"]:
        address = address_of(bytes.fromhex(output["scriptPubKey"]), "regtest")
        assert address is not None
        said[address] = said.get(address, 0) + satoshis(Decimal(output["amount"]))
    assert balances_of(database) == said
    held = {name for name in "abcde" if address_of(to(name), "regtest") in said}
    assert held == {"a", "c"}
    assert len(said) > 5
