"""A thousand lives of bitcoin-blockfiles leave nothing behind (clause L5)."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from supervm_rt import _abi
from tests.plugins.folder import BlocksFolder, payload, record
from tests.plugins.host import InitFailed, PluginHost


def left_behind() -> dict[str, int]:
    gc.collect()
    mappings = Path("/proc/self/maps").read_text().splitlines()
    return {
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        # A sanitizer maps more memory for itself as time goes by.
        "mappings": 0 if "SUPERVM_SANITIZED" in os.environ else len(mappings),
        "libraries in memory": sum("memfd:" in line for line in mappings),
    }


@pytest.mark.own_process
def test_a_thousand_rounds(blockfiles: Path, tmp_path: Path) -> None:
    folder = BlocksFolder(tmp_path / "blocks")
    folder.append(0, b"".join(record(payload(number)) for number in range(3)))
    slots, after_ten = _abi.slots_in_use(), dict[str, int]()
    for round_number in range(1, 1001):
        configuration: dict[str, object] = {"blocks_dir": str(folder.path), "network": "regtest", "follow": round_number % 4 < 2}
        with PluginHost(blockfiles, configuration, ring_bytes=1 << 16) as host:
            # Every other life ends at once, wherever its thread is then.
            if round_number % 2:
                assert len(host.until_idle()) == 3
        del host
        if round_number == 10:
            after_ten = left_behind()
    assert left_behind() == after_ten
    assert _abi.slots_in_use() == slots


@pytest.mark.own_process
def test_a_failed_init_leaves_nothing(blockfiles: Path, tmp_path: Path) -> None:
    folder = BlocksFolder(tmp_path / "blocks")
    folder.append(0, record(payload(0)))
    (folder.path / "xor.dat").write_bytes(b"short")
    after_ten = dict[str, int]()
    for round_number in range(1, 101):
        with pytest.raises(InitFailed), PluginHost(blockfiles, {"blocks_dir": str(folder.path)}, ring_bytes=1 << 16):
            pass
        if round_number == 10:
            after_ten = left_behind()
    assert left_behind() == after_ten
