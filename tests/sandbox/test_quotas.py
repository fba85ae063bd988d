"""What a manifest's resources grant is all there is: storage of its own, and control groups where this host may make them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervm_rt.errors import ConfigurationError
from supervm_rt.transports.native.child.cgroups import Bases, Group, Quotas, find_bases
from supervm_rt.transports.native.child.storage import MOST_ENTRIES, make_folder, measure
from tests.sandbox.support import make_attacker, observe

USER = os.geteuid()


def test_storage_is_kept_from_life_to_life_and_is_the_plugins_own(tmp_path: Path) -> None:
    folder = make_attacker(tmp_path / "plugin", read_paths="[]", resources="{storage: 4MiB}")
    for life in range(2):
        seen = observe(folder, tmp_path, ["write_storage"], {}, user=USER)["acts"]["write_storage"]
        assert seen["log"] == [f"write_storage answered {100 + life}"]
        assert seen["confined"]["quotas"] == {"storage": "polling"}
    kept = tmp_path / "store.db.plugins" / "write_storage" / "kept"
    assert kept.read_bytes() == b"xx"
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    if USER == 0:
        assert kept.stat().st_uid == seen["confined"]["user"]


def test_without_a_grant_nothing_can_be_written(tmp_path: Path) -> None:
    folder = make_attacker(tmp_path / "plugin", read_paths="[]", resources="{storage: 0}")
    seen = observe(folder, tmp_path, ["write_storage"], {}, user=USER)["acts"]["write_storage"]
    assert seen["log"] == [f"write_storage answered {errno.EPERM}"]
    assert not (tmp_path / "store.db.plugins").exists()


def test_storage_gives_no_way_out(tmp_path: Path) -> None:
    folder = make_attacker(tmp_path / "plugin", read_paths="[]", resources="{storage: 4MiB}")
    acts = ["make_links", "climb", "make_program", "write_root", "read_proc", "write_one_large", "write_many"]
    seen = observe(folder, tmp_path, acts, {}, user=USER, settle=2.5)["acts"]
    assert seen["make_links"]["log"] == [f"make_links answered {errno.EPERM}"]
    assert seen["climb"]["log"] in ([f"climb answered {errno.EROFS}"], [f"climb answered {errno.EACCES}"])
    assert seen["make_program"]["log"] == [f"make_program answered {errno.EPERM}"]
    assert seen["write_root"]["log"] in (
        [f"write_root answered {number}"] for number in (errno.EROFS, errno.EACCES, errno.ENOENT)
    )
    assert seen["read_proc"]["log"] == [f"read_proc answered {errno.ENOENT}"]
    assert seen["write_one_large"]["causes"] == ["quota"], "RLIMIT_FSIZE"
    assert seen["write_many"]["causes"] == ["quota"], seen["write_many"]
    assert "its storage holds" in seen["write_many"]["failures"][0]


def test_a_link_in_the_place_of_the_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigurationError, match="cannot be a plugin's storage"):
        make_folder(tmp_path / "link", None)


def test_what_is_measured(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"x" * 10_000)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    (tmp_path / "link").symlink_to("/usr")
    size, entries = measure(tmp_path)
    assert entries == 4
    assert (1 << 20) + 10_000 <= size < (1 << 20) + 100_000
    for number in range(MOST_ENTRIES):
        (tmp_path / "folder" / str(number)).touch()
    assert measure(tmp_path)[1] > MOST_ENTRIES


def test_a_version_2_group_says_what_is_asked(tmp_path: Path) -> None:
    for name in ("memory.max", "cpu.max", "pids.max"):
        (tmp_path / name).touch()
    group = Group(Bases(2, dict.fromkeys(("memory", "cpu", "tasks"), tmp_path)), Quotas(memory=1 << 20, cpu=0.5, tasks=7))
    (folder,) = group.folders
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert written == {"memory.max": "1048576", "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "7"}
    assert group.enforces == {"memory", "cpu", "tasks"}
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.killed_for_memory() == 2


@pytest.mark.parametrize(("subtree", "alone"), [("memory pids cpu", False), ("", True)])
def test_where_version_2_is_delegated(tmp_path: Path, subtree: str, alone: bool) -> None:
    mount, proc = tmp_path / "mount", tmp_path / "proc"
    base = mount / "service"
    base.mkdir(parents=True)
    proc.mkdir()
    (proc / "mountinfo").write_text(f"30 1 0:26 / {mount} rw - cgroup2 cgroup2 rw\n")
    (proc / "cgroup").write_text("0::/service\n")
    (base / "cgroup.controllers").write_text("cpu memory pids\n")
    (base / "cgroup.subtree_control").write_text(subtree)
    (base / "cgroup.procs").write_text(f"{os.getpid()}\n" if alone else "1\n2\n")
    assert find_bases(proc) == Bases(2, dict.fromkeys(("memory", "cpu", "tasks"), base))


def test_where_nothing_is_delegated(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("30 1 0:26 / / rw - ext4 /dev/vda rw\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    assert find_bases(tmp_path) is None


def test_groups_of_a_host_that_is_gone_are_cleared(tmp_path: Path) -> None:
    mount, proc = tmp_path / "mount", tmp_path / "proc"
    proc.mkdir()
    left, mine, other = (mount / name for name in ("supervm-4000000-77-0", f"supervm-{os.getpid()}-0-0", "another"))
    for folder in (left, mine, other):
        folder.mkdir(parents=True)
    (proc / "mountinfo").write_text(f"30 1 0:26 / {mount} rw - cgroup cgroup rw,memory\n")
    (proc / "cgroup").write_text("4:memory:/\n")
    assert find_bases(proc) == Bases(1, {"memory": mount})
    assert [folder.name for folder in mount.iterdir()] == ["another"], "a number that was used again is another process"


def test_a_real_group_comes_and_goes() -> None:
    bases = find_bases()
    if bases is None:  # an ordinary user without a delegated group
        return
    group = Group(bases, Quotas(memory=64 << 20, cpu=1.0, tasks=10))
    assert group.enforces
    assert all(folder.is_dir() for folder in group.folders)
    assert group.killed_for_memory() == 0
    folders = group.folders
    assert group.remove()
    assert not any(folder.exists() for folder in folders)
