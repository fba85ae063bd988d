"""What a manifest's resources grant is all there is: storage of its own, and control groups where this host may make them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from supervm_rt.errors import ConfigurationError
from supervm_rt.transports.native.child.cgroups import Bases, Group, Quotas, find_bases
from supervm_rt.transports.native.child.seccomp import SHIPPED
from supervm_rt.transports.native.child.storage import (
    MOST_ENTRIES,
    excess,
    image_bytes,
    image_of,
    make_folder,
    make_image,
    measure,
)
from tests.sandbox.support import Aim, compile_c, make_attacker, observe, try_outside, without_namespaces

USER = os.geteuid()


@pytest.fixture(scope="module", params=SHIPPED)
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def grants(folder: Path, resources: str, profile: str = "baseline", **fields: str) -> Path:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    plugin = folder / f"plugin-{len(list(folder.iterdir()))}"
    return make_attacker(plugin, profile=profile, read_paths="[]", resources=resources, **fields)


def control_answers(control: Path, attack: str, user: int, folder: Path) -> int:
    """What the attack answers outside of a sandbox, in a folder of its own."""
    own = folder / attack
    own.mkdir()
    os.chown(own, user, user)
    done = try_outside(control, attack, Aim(user, own, own / "none", own, 1, 1), own)
    assert done.returncode == 0, done
    return int(done.stdout)


OF_STORAGE = ("make_symbolic_link", "make_hard_link", "make_fifo", "make_device", "climb", "make_program")
OF_QUOTAS = ("write_one_large", "write_many", "write_unlinked", "write_mapped", "bury_storage", "hog_memory", "hog_shared")


@pytest.mark.parametrize("attack", [*OF_STORAGE, *OF_QUOTAS])
def test_without_a_sandbox_there_is_no_end_to_it(attack: str, control: Path, work: Path, user: int) -> None:
    answer = control_answers(control, attack, user, work)
    if attack == "make_device" and user != 0:
        pytest.skip("needs root: an ordinary user makes no devices outside either")
    assert answer == 0


def test_without_a_sandbox_it_gets_the_processor(control: Path, work: Path, user: int) -> None:
    """More than twice what the test of that quota grants, also where others want it too."""
    assert control_answers(control, "burn", user, work) - 100 > 10


def loop_devices() -> list[str]:
    """The images that are mounted somewhere."""
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return [path.read_text().strip() for path in files if path.exists()]


def test_storage_is_kept_from_life_to_life_and_is_the_plugins_own(work: Path, user: int, profile: str, tmp_path: Path) -> None:
    folder = grants(tmp_path, "{storage: 4MiB}", profile)
    for life in range(2):
        seen = observe(folder, work, ["write_storage"], {}, user=user)["acts"]["write_storage"]
        assert seen["log"] == [f"write_storage answered {100 + life}"]
        way = seen["confined"]["quotas"]["storage"]
        assert way == ("file system" if user == 0 else "polling")
    base = work / "store.db.plugins"
    if user == 0:
        (image,) = (base / ".images").iterdir()
        assert image.stat().st_mode & 0o777 == 0o600
        assert str(image) not in loop_devices()
        listed = subprocess.run(["debugfs", "-R", "ls -l files", image], capture_output=True, text=True, check=True)
        assert f" {seen['confined']['user']} " in listed.stdout
    else:
        assert (base / "write_storage/kept").read_bytes() == b"xx"
        assert (base / "write_storage").stat().st_mode & 0o777 == 0o700


def test_without_a_grant_nothing_can_be_written(work: Path, user: int, profile: str, tmp_path: Path) -> None:
    folder = grants(tmp_path, "{storage: 0}", profile)
    seen = observe(folder, work, ["write_storage"], {}, user=user)["acts"]["write_storage"]
    assert seen["log"] == [f"write_storage answered {errno.EPERM}"]
    assert not (work / "store.db.plugins").exists()


@dataclass(frozen=True)
class Tried:
    """What became of each attack on what was granted, all in one node; as whom it ran and where."""

    user: int
    work: Path
    acts: dict[str, Any]

    def answers(self, act: str) -> int:
        """What the plugin saw."""
        (line,) = self.acts[act]["log"]
        return int(line.removeprefix(f"{act} answered "))


@pytest.fixture(scope="module")
def tried(aim: Aim, profile: str, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    folder = grants(tmp_path_factory.mktemp("plugins"), "{memory: 64MiB, storage: 4MiB}", profile)
    acts = [*OF_STORAGE, *OF_QUOTAS, "write_root", "read_proc"]
    work = aim.work / profile
    work.mkdir()
    os.chown(work, aim.user, aim.user)
    return Tried(aim.user, work, observe(folder, work, acts, {}, user=aim.user, settle=2.5)["acts"])


def test_storage_gives_no_way_out(tried: Tried) -> None:
    for act in ("make_symbolic_link", "make_hard_link", "make_fifo", "make_device", "make_program"):
        assert tried.answers(act) == errno.EPERM, act
    assert tried.answers("climb") in {errno.EROFS, errno.EACCES}
    assert tried.answers("write_root") in {errno.EROFS, errno.EACCES, errno.ENOENT}
    assert tried.answers("read_proc") == errno.ENOENT


def test_storage_ends_where_it_is_full(tried: Tried) -> None:
    assert tried.acts["write_one_large"]["causes"] == ["quota"], "RLIMIT_FSIZE"
    entry = tried.acts["write_many"]
    if tried.user == 0:
        assert tried.answers("write_many") == errno.ENOSPC
        assert entry["exhausted"] == ["storage"]
        assert entry["failures"] == []
        image = image_of(tried.work / "store.db.plugins/write_many")
        assert image.stat().st_blocks * 512 <= image_bytes(4 << 20)
    else:
        assert entry["causes"] == ["quota"], entry
        assert "its storage holds" in entry["failures"][0]


def test_what_is_hidden_in_storage_is_the_fault_of_who_hid_it(tried: Tried) -> None:
    """A file system counts it all the same; who only looks cannot."""
    entry = tried.acts["bury_storage"]
    assert tried.answers("bury_storage") == 0
    assert entry["causes"] == ([] if tried.user == 0 else ["quota"]), entry
    assert tried.user == 0 or "cannot be measured" in entry["failures"][0]


@pytest.mark.parametrize(
    ("act", "says"), [("write_unlinked", "its storage holds"), ("write_mapped", "without a name that is only mapped")]
)
def test_files_without_a_name_count_too(act: str, says: str, tried: Tried) -> None:
    entry = tried.acts[act]
    assert tried.answers(act) == (errno.ENOSPC if tried.user == 0 else 0)
    assert entry["causes"] == ([] if tried.user == 0 else ["quota"]), entry
    assert tried.user == 0 or says in entry["failures"][0]


def test_memory_beyond_the_quota_is_refused(tried: Tried) -> None:
    """What RLIMIT_DATA does not count seccomp refuses."""
    assert tried.answers("hog_memory") == errno.ENOMEM
    assert tried.acts["hog_memory"]["exhausted"] == ["memory"]
    assert tried.answers("hog_shared") == errno.EPERM


def test_memory_that_an_operators_profile_allows_ends_it(work: Path, user: int, tmp_path: Path) -> None:
    """The group holds it; without one the host looks, and says that it does no more than that."""
    profile = tmp_path / "shares.profile"
    profile.write_text("include baseline\n[running]\nmmap a2 & PROT_EXEC == 0, a3 & MAP_TYPE == MAP_SHARED\n")
    folder = grants(tmp_path, "{memory: 64MiB}", str(profile))
    seen = observe(folder, work, ["hog_shared"], {}, user=user, settle=2.5)["acts"]["hog_shared"]
    assert seen["causes"] == ["quota"]
    if "cgroup" not in seen["confined"]["quotas"]["memory"]:
        assert seen["confined"]["quotas"]["memory"] == "polling"
        assert f"of memory of the {64 << 20} that it may" in seen["failures"][0]
        return
    assert f"it used more memory than the {64 << 20} bytes of its manifest" in seen["failures"][0]


def test_code_that_was_written_cannot_be_run_not_even_while_the_library_is_loaded(work: Path, user: int, tmp_path: Path) -> None:
    """Constructors may map code and write their storage: it is mounted noexec, also without the rights of root."""
    folder = tmp_path / "plugin"
    tmp_path.chmod(0o755)
    make_attacker(folder, "-DCONSTRUCTOR=make_program", read_paths="[]", resources="{storage: 4MiB}")
    seen = observe(folder, work, ["nothing"], {}, user=user)["acts"]["nothing"]
    assert seen["log"] == [f"make_program answered {errno.EPERM}"]


@pytest.mark.parametrize("act", ["write_many", "hog_tables", "burn"])
def test_quotas_that_are_looked_at_hold_constructors_too(act: str, work: Path, user: int, tmp_path: Path) -> None:
    """Before the library is loaded; what the kernel itself enforces it enforces all the time."""
    folder = tmp_path / "plugin"
    tmp_path.chmod(0o755)
    resources = '{storage: 4MiB, memory: 64MiB, cpu: "0.1"}'
    make_attacker(folder, f"-DCONSTRUCTOR={act}", "-DSTAY=4", read_paths="[]", resources=resources)
    seen = observe(folder, work, ["nothing"], {}, user=user)["acts"]["nothing"]
    if act == "burn":
        assert seen["exhausted"] == ["cpu"], seen
        assert seen["failures"] == []
    elif act == "hog_tables" or user != 0:
        assert seen["causes"] == ["quota"], seen
        assert seen["log"] == [], "it was never started"
    else:
        assert seen["log"] == [f"write_many answered {errno.ENOSPC}"]


@pytest.mark.skipif(USER != 0, reason="needs root: only root mounts a file system")
def test_storage_grows_and_shrinks_with_its_grant(tmp_path: Path) -> None:
    for number, size in enumerate((4, 12, 3)):
        folder = grants(tmp_path, f"{{storage: {size}MiB}}")
        seen = observe(folder, tmp_path, ["write_storage"], {}, user=0)["acts"]["write_storage"]
        assert seen["log"] == [f"write_storage answered {100 + number}"], "what was written is still there"
        assert image_of(tmp_path / "store.db.plugins/write_storage").stat().st_size == image_bytes(size << 20)
    image = image_of(tmp_path / "store.db.plugins/write_storage")
    os.chown(image, 4321, 4321)
    with pytest.raises(ConfigurationError, match="it is not root's own file"):
        make_image(image, 3 << 20)


MAPS_MANY = """
import mmap, os, sys
for _ in range(14):
    os.mkdir("n n" * 80)
    os.chdir("n n" * 80)
file = os.open("file", os.O_CREAT | os.O_RDWR)
os.write(file, bytes(4096))
kept = [mmap.mmap(file, 4096, prot=mmap.PROT_READ) for _ in range(int(sys.argv[1]))]
print("mapped", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("mappings", "says"), [(100, ""), (3_000, "more mappings than can be looked at")])
def test_what_is_read_of_mappings_is_bounded(mappings: int, says: str, tmp_path: Path) -> None:
    """Their names are the process's own choice, of some 4 KiB each."""
    folder = tmp_path / "storage"
    folder.mkdir()
    command = [sys.executable, "-c", MAPS_MANY, str(mappings)]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mapped\n"
        pidfd = os.pidfd_open(process.pid)
        found = excess(folder, 1 << 20, (process.pid, pidfd))
        os.close(pidfd)
        process.kill()
    assert says in found
    assert bool(says) == bool(found)


def test_files_without_a_name_count_in_degraded_mode_too(work: Path, user: int, tmp_path: Path) -> None:
    folder = grants(tmp_path, "{storage: 4MiB}")
    (tmp_path / "root").mkdir()
    if user == 0:
        closed = observe(folder, work, ["write_storage"], {}, user=user, prefix=without_namespaces(tmp_path / "root"))
        assert f"and {work} is closed to others" in closed["acts"]["write_storage"]["failures"][0]
        work.chmod(0o711)
    acts = ["write_unlinked", "write_mapped", "write_many", "write_storage"]
    seen = observe(folder, work, acts, {}, user=user, settle=2.5, prefix=without_namespaces(tmp_path / "root"))
    assert seen["degraded"] is True
    for act in acts[:3]:
        assert seen["acts"][act]["causes"] == ["quota"], seen["acts"][act]
        assert seen["acts"][act]["confined"]["quotas"]["storage"] == "polling"
    assert seen["acts"]["write_storage"]["log"] == ["write_storage answered 100"]
    assert seen["acts"]["write_storage"]["failures"] == []


def test_memory_that_no_limit_counts_ends_it(work: Path, user: int, tmp_path: Path) -> None:
    """Tables of what is only read: the group counts them, else the look each second does. Outside nobody does."""
    program = compile_c("control.c", tmp_path / "control")
    outside = subprocess.run([program, "hog_tables", "/", "0", "0"], capture_output=True, text=True, check=True)
    assert outside.stdout == "0\n"
    folder = grants(tmp_path / "plugins", "{memory: 64MiB}")
    seen = observe(folder, work, ["hog_tables", "write_storage"], {}, user=user, settle=2.5)["acts"]
    assert seen["hog_tables"]["causes"] == ["quota"], seen
    assert "memory" in seen["hog_tables"]["failures"][0]
    assert seen["write_storage"]["failures"] == []


def test_processor_time_beyond_the_quota_is_held_back(work: Path, user: int, profile: str, tmp_path: Path) -> None:
    folder = grants(tmp_path, '{cpu: "0.05"}', profile)
    seen = observe(folder, work, ["burn"], {}, user=user, settle=1.5)["acts"]["burn"]
    got = int(seen["log"][0].removeprefix("burn answered ")) - 100
    assert got < (35 if seen["confined"]["quotas"]["cpu"] == "polling" else 20), "a polled one has a burst before"
    assert seen["exhausted"] == ["cpu"]
    assert seen["failures"] == []
    assert seen["state"] == "unloaded"


def test_a_link_in_the_place_of_the_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigurationError, match="cannot be a plugin's storage"):
        make_folder(tmp_path / "link", None)


@pytest.mark.skipif(USER != 0, reason="needs root: only root mounts a file system")
def test_a_tool_that_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervm_rt.transports.native.child.storage._SECONDS", 0.0001)
    with pytest.raises(ConfigurationError, match="mke2fs did not end within 0.0001 s"):
        make_image(tmp_path / "images/it.ext4", 4 << 20)
    assert list((tmp_path / "images").iterdir()) == []


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


def test_why_storage_is_too_much(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    assert excess(tmp_path, 1 << 20) == ""
    assert "bytes of the 5000" in excess(tmp_path, 5_000)
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("n" * 200, dir_fd=place)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    assert "cannot be measured (File name too long)" in excess(tmp_path, 1 << 20)


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


def test_names_that_are_no_text_are_no_matter(tmp_path: Path) -> None:
    """Of whatever else is mounted, and of this process's own groups."""
    mount, proc = tmp_path / "mount", tmp_path / "proc"
    base = mount / os.fsdecode(b"service-\xff")
    base.mkdir(parents=True)
    proc.mkdir()
    other = b"29 1 0:25 / /media/\xff\xfe\r\xc2\x85 rw - ext4 /dev/vdb rw\n"
    (proc / "mountinfo").write_bytes(other + f"30 1 0:26 / {mount} rw - cgroup2 cgroup2 rw\n".encode())
    (proc / "cgroup").write_bytes(b"0::/service-\xff\n")
    (base / "cgroup.controllers").write_text("cpu memory pids\n")
    (base / "cgroup.subtree_control").write_text("cpu memory pids\n")
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
    if bases is None:
        pytest.skip("needs root: or a control group that was delegated to an ordinary user")
    group = Group(bases, Quotas(memory=64 << 20, cpu=1.0, tasks=10))
    assert group.enforces
    assert all(folder.is_dir() for folder in group.folders)
    assert group.killed_for_memory() == 0
    folders = group.folders
    assert group.remove()
    assert not any(folder.exists() for folder in folders)
