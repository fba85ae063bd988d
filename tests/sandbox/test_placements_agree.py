"""Real Bitcoin input gives the same digest wherever the plugin's code runs (clauses T2, G2, IR1)."""

from __future__ import annotations

import bz2
import json
import shutil
from pathlib import Path

import pytest
import trio

import supervm_rt
from supervm_rt import PluginConfig, PolicyLevel, RestartPolicy, RuntimeConfig
from supervm_rt.cli.demo import SAMPLE_CHAIN, shipped_plugin
from supervm_rt.store import digest
from supervm_rt.trust.policy import Placement
from tests.cli.test_real_data import BITCOIN, MAINNET_MAGIC, REGTEST_MAGIC, blocks_folder, framed
from tests.data import needs_data
from tests.vectors import regtest

TESTNET_MAGIC = bytes.fromhex("0b110907")
pytestmark = pytest.mark.unsanitized("runs confined")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped one, whose manifest leaves to the operator where it runs."""
    folder = tmp_path_factory.mktemp("plugin") / "plugin"
    shutil.copytree(shipped_plugin("bitcoin-blockfiles"), folder)
    manifest = folder / "plugin.yaml"
    manifest.write_text(manifest.read_text().replace("sandbox: true", "sandbox: false"))
    return folder


def mirrored(plugin: Path, placement: Placement, store: Path, blocks: Path, network: str, **settings: object) -> tuple[str, int]:
    """(digest, blocks) of what the plugin reads there."""
    config = RuntimeConfig(
        store=store,
        policy=PolicyLevel.DEV,
        plugins=(
            PluginConfig(
                path=plugin,
                placement=placement,
                restart=RestartPolicy.NEVER,
                settings={"blocks_dir": str(blocks), "network": network, **settings},
            ),
        ),
    )

    async def main() -> None:
        async with supervm_rt.open_runtime(config) as runtime:
            with trio.fail_after(60):
                await runtime.wait_idle()
            (status,) = runtime.plugins.values()
            assert status.failure is None, status.failure
            assert status.placement is placement
            assert (status.confinement is None) == (placement is Placement.IN_PROCESS)

    trio.run(main)
    with supervm_rt.Store.open(store, read_only=True) as opened:
        found = digest(opened, "bitcoin")
        return found.hex, found.blocks


def agree(plugin: Path, folder: Path, blocks: Path, network: str, **settings: object) -> int:
    """How many blocks there were; one digest for both places of a library."""
    found = {
        placement: mirrored(plugin, placement, folder / f"{placement}.db", blocks, network, **settings)
        for placement in (Placement.IN_PROCESS, Placement.CHILD)
    }
    assert len(set(found.values())) == 1, found
    return found[Placement.CHILD][1]


def test_the_sample_chain(plugin: Path, tmp_path: Path) -> None:
    assert agree(plugin, tmp_path, SAMPLE_CHAIN / "blocks", "regtest") == 326


@needs_data
def test_the_first_255_blocks_of_the_main_network(plugin: Path, tmp_path: Path) -> None:
    blocks = blocks_folder(tmp_path, bz2.decompress((BITCOIN / "blocks1-256.bz2").read_bytes()))
    assert agree(plugin, tmp_path, blocks, "main") == 256, "the genesis block included"


@needs_data
@pytest.mark.parametrize("name", ["277647.dat.bz2", "bcoin-block300025.raw", "bitcoinj-block363703.dat"])
def test_a_full_block(plugin: Path, tmp_path: Path, name: str) -> None:
    content = (BITCOIN / name).read_bytes()
    content = bz2.decompress(content) if name.endswith(".bz2") else framed(MAINNET_MAGIC, content)
    assert agree(plugin, tmp_path, blocks_folder(tmp_path, content), "main") == 1


@needs_data
@pytest.mark.parametrize(
    ("names", "network", "settings"),
    [
        (["bitcoinj-block169482.dat"], "main", {"start_height": 169_482}),
        (["bitcoinj-block227835.dat", "bitcoinj-block227836.dat"], "main", {"start_height": 227_835}),
        (["bitcoinj-block370661.dat"], "main", {}),
        (["bitcoinj-block_testnet21066.dat"], "testnet3", {}),
        (["bitcoinj-block_testnet32768.dat"], "testnet3", {}),
        (["bitcoinj-block_testnet700000.dat"], "testnet3", {}),
        (["rb-test.raw"], "testnet3", {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_blocks_as_a_node_sent_them(
    plugin: Path, tmp_path: Path, names: list[str], network: str, settings: dict[str, object]
) -> None:
    """One that commits to no height, a pair of which the second stands upon the first, and those of the test network."""
    magic = MAINNET_MAGIC if network == "main" else TESTNET_MAGIC
    content = framed(magic, *((BITCOIN / name).read_bytes() for name in names))
    assert agree(plugin, tmp_path, blocks_folder(tmp_path, content), network, **settings) == len(names)


@needs_data
@pytest.mark.parametrize("number", range(regtest.SCENARIOS))
def test_a_scenario_of_a_real_node(plugin: Path, tmp_path: Path, number: int) -> None:
    document = json.loads(regtest.DATA.read_text())
    scenario = document["scenarios"][number]
    raw = {block["hash"]: bytes.fromhex(block["raw"]) for block in scenario["blocks"]}
    base = [bytes.fromhex(block["raw"]) for block in document["base"]]
    content = framed(REGTEST_MAGIC, *base, *(raw[step["submit"]] for step in scenario["steps"]))
    assert agree(plugin, tmp_path, blocks_folder(tmp_path, content), "regtest") >= len(base)
