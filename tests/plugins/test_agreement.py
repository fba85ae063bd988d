"""The reader against plain Python, over random layouts: same blocks, same order, and every position leads to the rest.

Invariant: for a folder that nobody writes to, the plugin publishes exactly what ``folder.read_file`` finds in each file, in
the order of the files, and a run that starts at the position of block N publishes exactly what comes after block N.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.plugins.folder import LARGEST, MAGIC, BlocksFolder, obscure, read_file, record
from tests.plugins.host import PluginHost

# Payloads of every texture: random, ending in zeros, all zeros, holding the magic or whole records.
payloads = st.one_of(
    st.binary(min_size=80, max_size=200),
    st.builds(lambda head, zeros: head + bytes(zeros), st.binary(min_size=80, max_size=90), st.integers(1, 130)),
    st.integers(80, 200).map(bytes),
    st.builds(lambda head, inner: head + record(inner), st.binary(max_size=9), st.binary(min_size=80, max_size=99)),
)
lengths = st.one_of(st.integers(0, 600), st.sampled_from([LARGEST, LARGEST + 1, 2**32 - 1]))
pieces = st.one_of(
    payloads.map(record),
    payloads.map(record),
    payloads.map(record),
    st.builds(lambda block, length: MAGIC + length.to_bytes(4, "little") + block, payloads, lengths),
    st.builds(lambda block, cut: record(block)[: -min(cut, len(block))], payloads, st.integers(1, 120)),
    st.binary(max_size=20),
    st.sampled_from([MAGIC, MAGIC[:2], bytes(8), bytes(100)]),
)
keys = st.one_of(st.just(b""), st.binary(min_size=8, max_size=8), st.just(MAGIC + b"\x50\0\0\0"))
# What lies raw behind the written part of each file.
tails = st.sampled_from([0, 0, 1, 7, 8, 63, 64, 65, 16384])
files = st.lists(st.tuples(st.lists(pieces, max_size=8), tails), min_size=1, max_size=4)


@settings(max_examples=150)
@given(files=files, key=keys)
@example(files=[([record(bytes(80)), record(bytes(80))], 16384), ([record(bytes(80))], 0)], key=b"")
@example(files=[([record(b"\x01" * 80)[:-1]], 0), ([MAGIC], 8), ([], 1)], key=b"")
def test_reads_what_the_model_reads(blockfiles: Path, files: list[tuple[list[bytes], int]], key: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = BlocksFolder(Path(name), key)
        expected: list[bytes] = []
        for number, (parts, tail) in enumerate(files):
            raw = obscure(b"".join(parts), key) + bytes(tail)
            folder.file(number).write_bytes(raw)
            expected += [payload for _, payload in read_file(raw, key)]
        configuration: dict[str, object] = {"blocks_dir": name, "network": "regtest"}
        with PluginHost(blockfiles, configuration) as host:
            assert host.until_idle() == expected
        for number, block in enumerate(host.blocks, start=1):
            with PluginHost(blockfiles, configuration, position=block.position) as again:
                assert again.until_idle() == expected[number:]
