"""The sample chain through the sandbox ends as it does in process, whatever happens to the plugin's process (clauses T2, L2)."""

from __future__ import annotations

import contextlib
import errno
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
from fuzz.child_kills.killing import Kills, configuration, digest_of, mirror, mirror_with_kills
from supervm_rt import EventKind, HostEvent, RestartPolicy
from supervm_rt.cli.demo import SAMPLE_CHAIN, shipped_plugin
from supervm_rt.transports.native.child.cgroups import find_bases
from supervm_rt.transports.native.child.host import launch_command
from tests.sandbox.support import as_user, make_attacker


@pytest.fixture(scope="module")
def sandboxed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return mirror(tmp_path_factory.mktemp("sandboxed") / "store.db")


def mirrored(store: Path, plugin: Path, blocks: Path) -> tuple[str, list[HostEvent]]:
    events: list[HostEvent] = []
    usual = configuration(store)
    (config,) = usual.plugins
    settings = {**config.settings, "blocks_dir": str(blocks)}
    config = replace(config, path=plugin, restart=RestartPolicy.NEVER, settings=settings)

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
    print(f"seed {seed}")
    kills = mirror_with_kills(tmp_path / "store.db", Random(seed))
    assert kills.done >= 3, f"seed {seed}"
    assert kills.uncommitted >= 1
    assert kills.causes == {"killed"}
    assert digest_of(tmp_path / "store.db") == sandboxed, f"seed {seed}"


@pytest.mark.nodes
@pytest.mark.timeout(300)
def test_killed_two_hundred_times_it_ends_alike(sandboxed: str, tmp_path: Path) -> None:
    """Over and over the sample chain; at least 50 of the kills within a reorg or an open transaction."""
    kills, seed = Kills(), 1_000
    while kills.done < 200 or kills.inside < 50:
        print(f"seed {seed}, after {kills.done} kills, {kills.inside} of them within a reorg or an open transaction")
        kills.add(mirror_with_kills(tmp_path / f"{seed}.db", Random(seed)))
        assert digest_of(tmp_path / f"{seed}.db") == sandboxed, f"seed {seed}"
        seed += 1
        assert seed < 1_100, kills
    assert kills.causes == {"killed"}
    assert kills.inside >= 50
    assert kills.in_transaction > 0
    assert kills.in_reorg > 0


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that an ordinary user can reach."""
    with tempfile.TemporaryDirectory(prefix="supervm-blocks-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def closed_blocks(folder: Path, owner: int) -> Path:
    """The sample chain as a node writes it: folders 0700, files 0600."""
    blocks = folder / "blocks"
    shutil.copytree(SAMPLE_CHAIN / "blocks", blocks)
    for path in (blocks, *blocks.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.chown(path, owner, owner)
    return blocks


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root reads what belongs to others")
@pytest.mark.parametrize("owner", [0, 5678], ids=["root", "another user"])
def test_a_closed_folder_of_whomever_is_read(sandboxed: str, tmp_path: Path, outside: Path, owner: int) -> None:
    blocks = closed_blocks(outside, owner)
    found, events = mirrored(tmp_path / "store.db", shipped_plugin("bitcoin-blockfiles"), blocks)
    assert found == sandboxed
    (confined,) = (event for event in events if event.kind is EventKind.PLUGIN_CONFINED)
    assert confined.data["user"] not in {0, owner}


@pytest.fixture
def not_mapping(outside: Path) -> Iterator[Path]:
    """A folder on a file system that cannot map owners."""
    if subprocess.run(["mount", "-t", "ramfs", "supervm-test", outside], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs root: one who may mount")
    try:
        outside.chmod(0o755)
        yield outside
    finally:
        subprocess.run(["umount", "--lazy", outside], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root reads what belongs to others")
def test_where_owners_cannot_be_mapped_it_runs_as_the_owner(sandboxed: str, tmp_path: Path, not_mapping: Path) -> None:
    blocks = closed_blocks(not_mapping, owner=5678)
    found, events = mirrored(tmp_path / "store.db", shipped_plugin("bitcoin-blockfiles"), blocks)
    assert found == sandboxed
    (confined,) = (event for event in events if event.kind is EventKind.PLUGIN_CONFINED)
    assert confined.data["user"] == 5678


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root reads what belongs to others")
def test_where_the_owner_is_root_as_well_it_says_that_nothing_helps(tmp_path: Path, not_mapping: Path) -> None:
    blocks = closed_blocks(not_mapping, owner=0)
    with pytest.raises(AssertionError, match="cannot be made readable for the sandbox's user"):
        mirrored(tmp_path / "store.db", shipped_plugin("bitcoin-blockfiles"), blocks)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root reads what belongs to others")
@pytest.mark.parametrize("order", ["mapping first", "mapping last"])
def test_paths_of_several_owners(tmp_path: Path, not_mapping: Path, order: str) -> None:
    """Where one can be read by its owner alone the process runs as that, and the others are mapped to it; two are too many."""

    def closed(folder: Path, owner: int) -> Path:
        folder.mkdir(mode=0o700)
        (folder / "file").write_text(f"{owner}\n")
        (folder / "file").chmod(0o600)
        os.chown(folder, owner, owner)
        os.chown(folder / "file", owner, owner)
        return folder

    def read(*paths: Path) -> subprocess.CompletedProcess[str]:
        shown = [word for path in paths for word in ("--read", str(path))]
        command = [*launch_command(), "--user", "2000000001", "2000000001", *shown, "--", "/bin/cat"]
        return subprocess.run(
            [*command, *(f"/tmp/{index}/file" for index in range(len(paths)))], capture_output=True, text=True, check=False
        )

    mapped, kept = closed(tmp_path / "mapped", 1111), closed(not_mapping / "kept", 5678)
    paths = (mapped, kept) if order == "mapping first" else (kept, mapped)
    done = read(*paths)
    assert sorted(done.stdout.split()) == ["1111", "5678"], done.stderr
    other = closed(not_mapping / "other", 6789)
    refused = read(kept, other)
    assert refused.returncode != 0
    assert f"{kept} and {other} belong to different users (5678 and 6789)" in refused.stderr


def test_a_killed_host_leaves_nothing_behind(work: Path, user: int, tmp_path: Path) -> None:
    """No process, mount, loop device or temporary file; and control groups, which a kill leaves, only until the next start.

    The plugin first clears its death signal and leaves the session of its host, where it can.
    """
    bases = find_bases()

    def left() -> list[str]:
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if "supervm" in line]
        images = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file") if path.exists()]
        return [*mounts, *(image for image in images if str(work) in image), *map(str, temporary.iterdir())]

    def groups(host: int) -> list[str]:
        folders = set(bases.folders.values()) if bases is not None and user == os.geteuid() else set()
        return [str(group) for folder in folders for group in folder.glob(f"supervm-{host}-*")]

    def mirror_command(plugin: Path, store: str, *options: str) -> list[str]:
        command = [*as_user(user), sys.executable, "-m", "supervm_rt", "mirror", "--plugin", str(plugin), "--policy", "dev"]
        return [*command, "--store", str(work / store), *options]

    temporary = work / "temporary"
    temporary.mkdir()
    os.chown(temporary, user, user)
    plugin = make_attacker(tmp_path / "plugin", read_paths="[]", resources="{memory: 64MiB, storage: 4MiB}")
    tmp_path.chmod(0o755)
    before = left()
    environment = {**os.environ, "TMPDIR": str(temporary), "HOME": str(work)}
    command = mirror_command(plugin, "killed.db", "--set", "act=outlive")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as host:
        assert host.stderr is not None
        said = []
        for line in host.stderr:
            said.append(line)
            if "outlive answered" in line:
                break
        for attempt in ("clear_death_signal", "leave_session"):
            assert f"{attempt} answered {errno.EPERM}" in "".join(said)
        family = descendants(host.pid)
        assert len(family) >= 2, "bubblewrap and the runner"
        assert bases is None or user != os.geteuid() or groups(host.pid)
        host.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while alive := [process for process in family if is_alive(process)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.005)
    while left() != before:  # the kernel takes a file system away a moment after its last process
        assert time.monotonic() < deadline, left()
        time.sleep(0.005)
    reads = ["--set", f"blocks_dir={SAMPLE_CHAIN / 'blocks'}", "--set", "network=regtest", "--until-idle"]
    again = mirror_command(shipped_plugin("bitcoin-blockfiles"), "again.db", *reads)
    subprocess.run(again, check=True, capture_output=True, env=environment)
    assert groups(host.pid) == []
    assert left() == before


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
