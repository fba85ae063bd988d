"""A digest tells two stores apart if and only if they hold something else."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervm_rt.chain.types import ForkRules
from supervm_rt.errors import NotInStore
from supervm_rt.model.chain import ForkMode
from supervm_rt.store import ChainDigest, EndOfInput, FinalInput, Input, Store, StoredBlock, StoredEvent, digest
from tests.store.support import CHAIN, DEV, HEAVIEST, PLUGIN, block, dev_mirror, environment, fill, line, mixed_inputs


def digest_of(inputs: Sequence[Input], rules: ForkRules = HEAVIEST) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.store"
        fill(path, inputs, rules)
        with Store.open(path) as store:
            return digest(store, CHAIN).hex


def all_of(path: Path) -> tuple[ChainDigest, list[StoredEvent], list[StoredBlock]]:
    with Store.open(path, read_only=True) as store:
        reader = store.chain(CHAIN)
        names = [str(number).encode() for number in range(500)]
        blocks = [found for name in names if (found := reader.block_by_hash(name)) is not None]
        return digest(store, CHAIN), reader.events(limit=10_000), [replace(found, id=0) for found in blocks]


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    rules=st.builds(ForkRules, st.sampled_from(ForkMode), st.sampled_from([None, 0, 3]), st.sampled_from([0, 2, 50])),
    cuts=st.lists(st.integers(1, 60), max_size=12),
    reopen=st.sampled_from(["never", "mirror", "store"]),
)
def test_how_the_input_was_cut_into_batches_does_not_matter(seed: int, rules: ForkRules, cuts: list[int], reopen: str) -> None:
    inputs = mixed_inputs(seed, 60)
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder) / "whole.store", Path(folder) / "parts.store"
        told = fill(whole, inputs, rules)
        bounds = [0, *sorted(set(cuts)), len(inputs)]
        told_in_parts = []
        store = Store.open(parts, durable=False)
        mirror = dev_mirror(store, rules)
        for start, end in itertools.pairwise(bounds):
            told_in_parts += mirror.apply(PLUGIN, inputs[start:end])
            if reopen == "store":
                store.close()
                store = Store.open(parts, durable=False)
            if reopen != "never":
                mirror = dev_mirror(store, rules)
        store.close()
        assert told_in_parts == told
        assert all_of(parts) == all_of(whole)


BASE: list[Input] = [*line("a b c", "x", 0), *line("s", "a", 1), block("o", "nowhere", 9)]


@pytest.mark.parametrize(
    "other",
    [
        BASE[:-1],  # an orphan
        [*BASE, block("p", "nowhere", 9)],
        [*BASE[:3], block("t", "a", 1), BASE[4]],  # a block's id
        [*BASE[:4], block("o", "elsewhere", 9)],  # a parent
        [*BASE[:4], block("o", "nowhere", 8)],  # a height
        [*BASE[:4], block("o", "nowhere", None)],
        [*BASE[:4], block("o", "nowhere", 9, weight=2)],
        [*BASE[:4], block("o", "nowhere", 9, content=b"c")],
        [*BASE[:4], block("o", "nowhere", 9, size=101)],  # raw bytes
        [*BASE[:2], BASE[3], BASE[2], BASE[4]],  # the order of arrival
        [*BASE, FinalInput(b"a", 0)],  # an event
        [*BASE, *line("t u", "s", 2)],
    ],
)
def test_another_input_gives_another_digest(other: list[Input]) -> None:
    assert digest_of(other) != digest_of(BASE)


def test_other_ir_of_the_same_bytes_gives_another_digest() -> None:
    first = block("a", "x", 0)
    other = replace(first, translated=replace(first.translated, ir=b"other IR"))
    assert digest_of([other]) != digest_of([first])


def test_another_history_of_the_same_blocks_gives_another_digest() -> None:
    """Both end at b, after as many steps; on the way there one of them was at c, the other at d."""
    rules = replace(HEAVIEST, mode=ForkMode.FOLLOW)
    siblings = {name: block(name, "a", 1) for name in "bcd"}
    begin = [block("a", "x", 0), *siblings.values()]
    histories = [[*begin, *(siblings[name] for name in names)] for names in ("bcb", "cdb")]
    assert digest_of(histories[0], rules) != digest_of(histories[1], rules)


def test_the_mode_counts() -> None:
    longest = replace(HEAVIEST, mode=ForkMode.LONGEST)
    assert digest_of(line("a b", "x", 0), longest) != digest_of(line("a b", "x", 0), HEAVIEST)


def test_plugins_positions_and_names_do_not_count(tmp_path: Path) -> None:
    right = digest_of(BASE)
    with Store.open(tmp_path / "store") as store:
        other = store.mirror("another name", translator=DEV, rules=HEAVIEST)
        mirror = dev_mirror(store)
        for number, input_ in enumerate(BASE):
            other.apply("them", line(f"z{number}", f"z{number - 1}", number))  # rows of another chain in between
            mirror.apply(f"plugin {number}", [replace(input_, position=b"%d" % number), EndOfInput(b"end")])
        assert digest(store, CHAIN).hex == right
        assert digest(store, store.chain(CHAIN)).hex == right
        assert digest(store, "another name").hex != right
        with pytest.raises(NotInStore):
            digest(store, "no such chain")


def test_progress_is_told_and_may_end_the_reading(tmp_path: Path) -> None:
    fill(tmp_path / "store", line(" ".join(f"b{number}" for number in range(600)), "x", 0))
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with Store.open(tmp_path / "store", read_only=True) as store:
        counted = digest(store, CHAIN, lambda done, total: told.append((done, total)))
        assert (counted.blocks, counted.events, counted.bytes) == (600, 600, 60_000)
        assert told == [(done, 1200) for done in (256, 512, 856, 1112)]
        with pytest.raises(KeyboardInterrupt):
            digest(store, CHAIN, stop)
        assert digest(store, CHAIN) == counted


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_leaves_what_a_prefix_of_the_input_explains(tmp_path: Path, seed: int) -> None:
    """Killed again and again, between statements and within them, it goes on to the same end."""
    count = 1000
    inputs = mixed_inputs(seed, count)
    path = tmp_path / "killed.store"
    random = Random(seed)
    limits = [
        ("instructions", random.randint(100, 3000)) if life % 2 else ("milliseconds", random.randint(5, 30)) for life in range(8)
    ]
    deaths = done = 0
    for unit, amount in [*limits, ("instructions", 1 << 30)]:
        command = [sys.executable, "-m", "tests.store.killed", str(path), str(seed), str(count), unit, str(amount)]
        ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert ended.returncode in {0, -9}, ended.stderr
        deaths += ended.returncode == -9
        if path.exists():
            with Store.open(path) as store:
                dev_mirror(store)
                done = int(store.position(PLUGIN, CHAIN) or b"0")
                assert digest(store, CHAIN).hex == digest_of(inputs[:done])
    assert deaths >= 4
    assert done == len(inputs)
