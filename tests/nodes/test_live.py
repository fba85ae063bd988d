"""A running bitcoind is followed as it mines and reorganizes, through kills of the runtime, to the same store as from scratch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nodes.bitcoind import Bitcoind
from tests.nodes.runtime_process import Follower, ask, mirror_all, plugin_in_process

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(300)]


def digest(store: Path) -> str:
    return str(ask("chain", "digest", "bitcoin", "--store", str(store))["digest"])


def assert_equal_to_a_store_from_scratch(node: Bitcoind, store: Path, folder: Path) -> None:
    """Same tip as the node, and as mirrors that see all of the node's files at once; the same digest as those.

    One of them reads in a sandbox, as the one that followed did; the other in its host's own process.
    """
    fresh, in_process = folder / "from-scratch.db", folder / "in-process.db"
    summaries = [
        mirror_all(node.blocks_folder, fresh),
        mirror_all(node.blocks_folder, in_process, plugin=plugin_in_process(folder / "plugin")),
    ]
    tip = {"hash": node.tip().hash, "height": node.tip().height}
    for summary in summaries:
        assert summary["tip"] == tip
        assert summary["rejected"] == []
    found = ask("chain", "tip", "bitcoin", "--store", str(store))
    assert {"hash": found["hash"], "height": found["height"]} == tip
    assert digest(store) == digest(fresh) == digest(in_process)


def test_follows_a_node_through_reorgs_and_kills(bitcoind_folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "live.db"
    with Bitcoind(bitcoind_folder) as node:
        node.mine(20)
        with Follower(node.blocks_folder, store, tmp_path / "runtime.log") as runtime:
            runtime.wait_for_tip(node.tip().hash)

            node.mine(5)
            runtime.wait_for_tip(node.tip().hash)

            node.reorg(3)
            runtime.wait_for_tip(node.tip().hash)

            runtime.kill()
            node.mine(4)
            node.reorg(6)
            runtime.start()
            runtime.wait_for_tip(node.tip().hash)

            node.mine(1)
            runtime.wait_for_tip(node.tip().hash)
            assert runtime.stop() == 0
        assert_equal_to_a_store_from_scratch(node, store, tmp_path)


def test_kills_at_any_moment_lose_and_repeat_nothing(bitcoind_folder: Path, tmp_path: Path) -> None:
    """Block files of 64 KiB: the node goes on to the next one while the runtime is up, down and starting."""
    store = tmp_path / "live.db"
    with Bitcoind(bitcoind_folder, arguments=["-fastprune=1"]) as node:
        node.mine(30)
        with Follower(node.blocks_folder, store, tmp_path / "runtime.log") as runtime:
            runtime.wait_until(store.exists, "the store to be made")
            for round_ in range(6):
                # Killed with what was just mined in any state: unread, in the ring, in a transaction, committed.
                node.mine(25 * round_)
                runtime.kill()
                node.reorg(round_ + 1)
                runtime.start()
            runtime.wait_for_tip(node.tip().hash)
            assert runtime.stop() == 0
        assert len(list(node.blocks_folder.glob("blk*.dat"))) > 1
        assert_equal_to_a_store_from_scratch(node, store, tmp_path)


def test_follows_over_a_restart_of_the_node(bitcoind_folder: Path, tmp_path: Path) -> None:
    """A node that stops cuts the preallocated end off its last file, and writes there again when it is back."""
    store = tmp_path / "live.db"
    data_folder = tmp_path / "node"
    with Bitcoind(bitcoind_folder, data_folder=data_folder) as node:
        node.mine(10)
        with Follower(node.blocks_folder, store, tmp_path / "runtime.log") as runtime:
            runtime.wait_for_tip(node.tip().hash)
            node.stop()
            with Bitcoind(bitcoind_folder, data_folder=data_folder) as again:
                again.mine(3)
                runtime.wait_for_tip(again.tip().hash)
                again.reorg(2)
                runtime.wait_for_tip(again.tip().hash)
                assert runtime.stop() == 0
                assert_equal_to_a_store_from_scratch(again, store, tmp_path)


def test_reads_an_ended_node_as_it_left_its_files(bitcoind_folder: Path, tmp_path: Path) -> None:
    with Bitcoind(bitcoind_folder, data_folder=tmp_path / "node", arguments=["-blocksxor=0"]) as node:
        node.mine(12)
        node.reorg(2)
        tip = node.tip()
        node.stop()
        summary = mirror_all(node.blocks_folder, tmp_path / "all.db")
    assert summary["tip"] == {"hash": tip.hash, "height": tip.height}
    assert (summary["reorgs"], summary["deepest_reorg"]) == (1, 2)
