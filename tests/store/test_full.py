"""No room: the batch is not made, what was there stays, and it goes on once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervm_rt.errors import StoreError, StoreFull
from supervm_rt.store import Store, digest
from tests.store.support import CHAIN, PLUGIN, chain_of, dev_mirror

DISK_BYTES = 3 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    if os.geteuid() != 0:
        pytest.skip("needs root: only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", disk], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs root: this machine does not let root mount a small disk: {mounted.stderr}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_stores_own_bound_refuses_the_batch_and_only_it(tmp_path: Path) -> None:
    path = tmp_path / "chain.store"
    inputs = chain_of(40, size=50_000)
    with Store.open(path, max_bytes=1 << 20) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, inputs[:5])
        before = digest(store, CHAIN)
        with pytest.raises(StoreFull) as caught:
            mirror.apply(PLUGIN, inputs[5:])
        assert "make room" in caught.value.remedy
        assert mirror.broken
        assert digest(store, CHAIN) == before
        assert store.position(PLUGIN, CHAIN) == b"b4"
        dev_mirror(store).apply(PLUGIN, inputs[5:8])
    assert path.stat().st_size <= 1 << 20
    with Store.open(path) as store:
        dev_mirror(store).apply(PLUGIN, inputs[8:])
        assert len(store.chain(CHAIN).events()) == 40


def test_a_full_disk_refuses_the_batch_and_only_it(small_disk: Path) -> None:
    path = small_disk / "chain.store"
    inputs = chain_of(40, size=50_000)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    with Store.open(path) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, inputs[:5])
        for start in range(5, 15, 5):
            mirror.apply(PLUGIN, inputs[start : start + 5])
        before = digest(store, CHAIN)
        with pytest.raises(StoreFull, match=str(path)):
            mirror.apply(PLUGIN, inputs[15:])
        assert digest(store, CHAIN) == before
        with Store.open(path, read_only=True) as reader:
            assert digest(reader, CHAIN) == digest(store, CHAIN)
        ballast.unlink()
        dev_mirror(store).apply(PLUGIN, inputs[15:20])
    with Store.open(path) as store:
        tip = dev_mirror(store).tip
        assert tip is not None
        assert tip.height == 19


def test_a_store_on_a_full_disk_can_be_read_and_is_refused_for_writing(small_disk: Path) -> None:
    path = small_disk / "chain.store"
    with Store.open(path) as store:
        dev_mirror(store).apply(PLUGIN, chain_of(5))
    fill_up(small_disk)
    with Store.open(path, read_only=True) as store:
        assert len(store.chain(CHAIN).events()) == 5
    with pytest.raises(StoreFull) as caught:
        Store.open(path)
    assert caught.value.remedy
    with pytest.raises(StoreFull):
        Store.open(small_disk / "new.store")
    assert not (small_disk / "new.store").exists()
    assert not (small_disk / ".new.store.draft").exists()
    (small_disk / "ballast").unlink()
    with Store.open(path) as store:
        dev_mirror(store).apply(PLUGIN, chain_of(6)[5:])


def test_a_read_only_file_system_is_named(small_disk: Path) -> None:
    path = small_disk / "chain.store"
    with Store.open(path) as store:
        dev_mirror(store).apply(PLUGIN, chain_of(5))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        with Store.open(path, read_only=True) as store:
            assert len(store.chain(CHAIN).events()) == 5
        with pytest.raises(StoreError, match="may not write"):
            Store.open(path)
        with pytest.raises(StoreError, match="read-only"):
            Store.open(small_disk / "new.store")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


def fill_up(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    if file.write(bytes(size)) < size:
                        break
            except OSError:
                continue
