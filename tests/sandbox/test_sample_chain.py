"""The sample chain through the sandbox ends as it does in process, whatever happens to the plugin's process (clauses T2, L2)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import trio

import supervm_rt
from fuzz.child_kills.killing import configuration, digest_of, mirror, mirror_with_kills
from supervm_rt import EventKind, HostEvent
from supervm_rt.cli.demo import SAMPLE_CHAIN, shipped_plugin


@pytest.fixture(scope="module")
def sandboxed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return mirror(tmp_path_factory.mktemp("sandboxed") / "store.db")


def mirrored(store: Path, plugin: Path, blocks: Path) -> tuple[str, list[HostEvent]]:
    events: list[HostEvent] = []
    usual = configuration(store)
    (config,) = usual.plugins
    config = replace(config, path=plugin, settings={**config.settings, "blocks_dir": str(blocks)})

    async def main() -> None:
        async with supervm_rt.open_runtime(replace(usual, plugins=(config,)), receivers=(events.append,)) as runtime:
            with trio.fail_after(60):
                await runtime.wait_idle()
            (status,) = runtime.plugins.values()
            assert status.failure is None, status.failure

    trio.run(main)
    return digest_of(store), events


def test_it_equals_the_one_in_process(sandboxed: str, tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    shutil.copytree(shipped_plugin("bitcoin-blockfiles"), folder)
    manifest = folder / "plugin.yaml"
    manifest.write_text(manifest.read_text().replace("sandbox: true", "sandbox: false"))
    in_process, events = mirrored(tmp_path / "store.db", folder, SAMPLE_CHAIN / "blocks")
    assert in_process == sandboxed
    assert not [event for event in events if event.kind is EventKind.PLUGIN_CONFINED]


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_frames_it_ends_alike(sandboxed: str, tmp_path: Path, seed: int) -> None:
    kills = mirror_with_kills(tmp_path / "store.db", Random(seed))
    assert kills.done >= 3, f"seed {seed}"
    assert kills.uncommitted >= 1
    assert kills.causes == {"killed"}
    assert digest_of(tmp_path / "store.db") == sandboxed, f"seed {seed}"


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that an ordinary user can reach."""
    with tempfile.TemporaryDirectory(prefix="supervm-blocks-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what belongs to others")
@pytest.mark.parametrize("owner", [0, 5678], ids=["root", "another user"])
def test_a_closed_folder_of_whomever_is_read(sandboxed: str, tmp_path: Path, outside: Path, owner: int) -> None:
    """As a node writes it: folders 0700, files 0600."""
    blocks = outside / "blocks"
    shutil.copytree(SAMPLE_CHAIN / "blocks", blocks)
    for path in (blocks, *blocks.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.chown(path, owner, owner)
    found, events = mirrored(tmp_path / "store.db", shipped_plugin("bitcoin-blockfiles"), blocks)
    assert found == sandboxed
    (confined,) = (event for event in events if event.kind is EventKind.PLUGIN_CONFINED)
    assert confined.data["user"] not in {0, owner}


def test_a_killed_host_leaves_nothing_behind(tmp_path: Path) -> None:
    def mounts() -> list[str]:
        return sorted(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if "supervm" in line)

    before = mounts()
    command = [sys.executable, "-m", "supervm_rt", "mirror", "--plugin", str(shipped_plugin("bitcoin-blockfiles"))]
    command += ["--set", f"blocks_dir={SAMPLE_CHAIN / 'blocks'}", "--set", "network=regtest", "--set", "follow=true"]
    command += ["--policy", "dev", "--store", str(tmp_path / "store.db")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as host:
        assert host.stderr is not None
        for line in host.stderr:
            if "everything readable" in line:
                break
        family = descendants(host.pid)
        assert len(family) >= 2, "bubblewrap and the runner"
        host.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while alive := [process for process in family if is_alive(process)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.005)
    assert mounts() == before


def parent_of(process: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def is_alive(process: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    return False


def descendants(process: int) -> list[int]:
    parents = {int(entry.name): parent_of(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdecimal()}
    found = [process]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]
