"""Block files to a committed store, whole and by stage."""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import trio

from bench import blocks
from bench.building import ROOT
from bench.measuring import Row, in_turns, left_out
from bench.peers import bitcoinlib
from supervm_rt.chain.tracker import ForkTracker
from supervm_rt.chain.types import Candidate, ForkRules, ForkState
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.translator import RawBlock, TranslatedBlock
from supervm_rt.model.chain import ForkMode
from supervm_rt.runtime import PluginConfig, RuntimeConfig, open_runtime
from supervm_rt.runtime.config import DEFAULT_RING_BYTES
from supervm_rt.store import BlockInput, Store
from supervm_rt.trust.policy import PolicyLevel

PLUGIN = ROOT / "plugins" / "bitcoin-blockfiles"
RELINKED = 200
RULES = ForkRules(mode=ForkMode.HEAVIEST, final_depth=100, orphan_limit=16_384)


def _fresh(folder: Path, count: itertools.count[int]) -> Path:
    """A path for a new store; the last one goes."""
    number = next(count)
    for path in folder.glob(f"store-{number - 1}*"):
        path.unlink()
    return folder / f"store-{number}.db"


def _runtime(source: Path, network: str, store: Path, blocks_in_all: int) -> float:
    """Seconds from opening the runtime to its end, with all that the files hold committed."""
    begun = time.perf_counter()
    taken = trio.run(_until_idle, source, network, store)
    elapsed = time.perf_counter() - begun
    assert taken == blocks_in_all, f"{taken} blocks of {blocks_in_all} were stored"
    return elapsed


async def _until_idle(source: Path, network: str, store: Path) -> int:
    plugin = PluginConfig(path=PLUGIN, settings={"blocks_dir": str(source), "network": network, "follow": False})
    config = RuntimeConfig(store=store, policy=PolicyLevel.DEV, plugins=(plugin,))
    async with open_runtime(config) as runtime:
        await runtime.wait_idle()
        return runtime.chains["bitcoin"].blocks


def rows(quick: bool) -> Iterator[Row]:
    """Whole ways first, then the stages of the larger one."""
    with tempfile.TemporaryDirectory(prefix="supervm-bench-", dir=ROOT / "build") as name:
        folder = Path(name)
        real = list(blocks.mainnet().values())
        if real:
            early = blocks.first_mainnet()
            yield from _files(folder, "mainnet blocks as they are", [*early, *real], "main", blocks.MAIN_MAGIC, linked=early)
            chain = blocks.relinked(real, RELINKED // (5 if quick else 1))
            yield from _files(folder, "mainnet blocks linked to one chain", chain, "regtest", blocks.REGTEST_MAGIC, linked=[])
            yield from _stages(folder, chain)
        else:
            left_out(
                "stores of mainnet blocks", "the folder ../shared/data is not there; blocks of the sample chain take their place"
            )
            chain = blocks.relinked([blocks.sample_segwit()], 2000)
            yield from _files(folder, "sample blocks linked to one chain", chain, "regtest", blocks.REGTEST_MAGIC, linked=[])
            yield from _stages(folder, chain)


def _files(folder: Path, name: str, chain: list[bytes], network: str, magic: bytes, *, linked: list[bytes]) -> Iterator[Row]:
    source = folder / name.replace(" ", "-")
    blocks.write_files(source, chain, magic)
    size = sum(map(len, chain))
    numbers = itertools.count(1)

    def ours() -> float:
        return size / 1e6 / _runtime(source, network, _fresh(folder, numbers), len(chain))

    def script() -> float:
        begun = time.perf_counter()
        count, _, _ = bitcoinlib.mirror(source, _fresh(folder, numbers), magic)
        elapsed = time.perf_counter() - begun
        assert count == len(chain)
        return size / 1e6 / elapsed

    rates = in_turns({"ours": ours, "script": script}, 5)
    per = len(chain) / size * 1e6
    note = f"{len(chain)} blocks, {size / 1e6:.1f} MB" + (f", {len(linked)} of them linked" if linked else "")
    yield Row(f"files to store, {name}", rates["ours"], rates["script"], "MB/s", note, 30.0)
    yield Row(f"files to store, {name}, in blocks", rates["ours"] * per, rates["script"] * per, "blocks/s", note)


def _stages(folder: Path, chain: list[bytes]) -> Iterator[Row]:
    """Each stage alone, on the same blocks; the script's stages as it went through them."""
    from bench.stages import read_all

    source = folder / "stages"
    blocks.write_files(source, chain, blocks.REGTEST_MAGIC)
    size = sum(map(len, chain)) / 1e6
    translator = BitcoinTranslator("regtest")
    translated = [translator.translate(RawBlock(raw)) for raw in chain]
    numbers = itertools.count(1000)
    script: dict[str, list[float]] = {}

    def run_script() -> float:
        _, _, stages = bitcoinlib.mirror(source, _fresh(folder, numbers), blocks.REGTEST_MAGIC)
        for stage, seconds in stages.items():
            script.setdefault(stage, []).append(size / seconds)
        return 1.0

    runs: dict[str, Callable[[], float]] = {
        "read": functools.partial(_read, source, size),
        "read and ring": functools.partial(read_all, PLUGIN, source, DEFAULT_RING_BYTES, size),
        "parse": functools.partial(_parse, translator, chain, size),
        "forks": functools.partial(_forks, translated, size),
        "commit": lambda: _commit(_fresh(folder, numbers), translator, translated, chain, size),
        "script": run_script,
    }
    rates = in_turns(runs, 5)
    peers = {stage: sorted(values[1:])[len(values[1:]) // 2] for stage, values in script.items()}
    notes = {
        "read": "the files alone, read whole in Python, on both sides",
        "read and ring": "the plugin reads and publishes, every frame is read and dropped",
        "parse": "parse and verify",
        "forks": "the tracker alone; the script follows no forks",
        "commit": "forks, all rows, checkpoints; the script keeps the raw block and no IR",
    }
    for stage, note in notes.items():
        yield Row(f"stage: {stage}", rates[stage], peers.get(stage), "MB/s", note)


def _read(source: Path, size: float) -> float:
    begun = time.perf_counter()
    for path in sorted(source.glob("blk*.dat")):
        path.read_bytes()
    return size / (time.perf_counter() - begun)


def _parse(translator: BitcoinTranslator, chain: list[bytes], size: float) -> float:
    claims = list(map(RawBlock, chain))
    begun = time.perf_counter()
    for one in claims:
        translator.translate(one)
    return size / (time.perf_counter() - begun)


def _forks(translated: list[TranslatedBlock], size: float) -> float:
    tracker = ForkTracker(RULES, ForkState(), lambda _: None)
    begun = time.perf_counter()
    height: int | None = 1
    for block in translated:
        tracker.block(Candidate(block.hash, block.parent, height, block.weight))
        height = None
    return size / (time.perf_counter() - begun)


def _commit(
    path: Path, translator: BitcoinTranslator, translated: list[TranslatedBlock], chain: list[bytes], size: float
) -> float:
    inputs = [BlockInput(block, raw) for block, raw in zip(translated, chain, strict=True)]
    begun = time.perf_counter()
    with Store.open(path) as store:
        mirror = store.mirror("bench", translator=translator, rules=RULES)
        at = taken = 0
        while at < len(inputs):
            end = at
            while end < len(inputs) and taken < DEFAULT_RING_BYTES // 4:
                taken += len(chain[end])
                end += 1
            mirror.apply("bench", inputs[at:end])
            at, taken = end, 0
    return size / (time.perf_counter() - begun)
