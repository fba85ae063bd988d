"""Programs that the node starts are confined and bounded as native children are, as root and as a user (clauses S1, P2, P3)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.remote.programs import program
from tests.remote.python_image import python_image
from tests.sandbox.support import ROOT, observe, users

SECURITY = "{sandbox: true, seccomp_profile: baseline}"


@pytest.fixture(params=users(), ids=lambda user: "root" if user == 0 else "user")
def user(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def work(user: int) -> Iterator[Path]:
    """Not below pytest's own folder: that is closed to others, and so to the ordinary user."""
    with tempfile.TemporaryDirectory(prefix="supervm-programs-") as name:
        os.chown(name, user, user)
        yield Path(name)


def run(
    folder: Path,
    work: Path,
    act: int,
    user: int,
    *,
    settle: float = 0.5,
    granted: str = "",
    resources: str = "{}",
    security: str = SECURITY,
) -> dict[str, Any]:
    folder.chmod(0o755)
    plugin = program(folder / "plugin", act, granted=granted, resources=resources, security=security)
    seen: dict[str, Any] = observe(plugin.path, work, ["it"], {"granted": granted}, user=user, settle=settle)["acts"]["it"]
    return seen


def answers(seen: dict[str, Any]) -> dict[str, int]:
    """What the program counted."""
    lines = [line.removeprefix("stdout: ").rpartition(" ") for line in seen["log"] if line[-1:].isdecimal()]
    return {what: int(number) for what, _, number in lines}


@pytest.mark.parametrize("image", [False, True], ids=["executable", "image"])
def test_it_lives_within_limits(work: Path, user: int, tmp_path: Path, image: bool) -> None:
    tmp_path.chmod(0o755)
    plugin = program(tmp_path / "plugin", 5, image=image, resources='{memory: 64MiB, cpu: "1.0", storage: 8MiB}')
    seen = observe(plugin.path, work, ["it"], {}, user=user, settle=0.5)["acts"]["it"]
    assert seen["state"] == "unloaded", seen
    assert not seen["failures"], seen
    found = answers(seen)
    assert found["landlock"] == errno.EACCES, "what is there and not granted"
    assert found["memory"] == errno.ENOMEM
    assert found["executable"] == errno.EPERM
    assert found["core"] == 0
    assert found["files"] < 256
    assert found["threads"] < 64
    assert seen["confined"]["landlock"] > 0
    quotas = seen["confined"]["quotas"]
    grouped = "cgroup" in quotas["cpu"]
    assert quotas == {
        "memory": f"{quotas['cpu']}, rlimit" if grouped else "polling",
        "cpu": quotas["cpu"],
        "storage": "file system" if user == 0 else "polling",
    }
    assert grouped == (user == 0)


@pytest.mark.parametrize("act", [7, 11], ids=["its own", "the kernel's tables"])
def test_memory_beyond_the_quota_ends_it(work: Path, user: int, tmp_path: Path, act: int) -> None:
    seen = run(tmp_path, work, act, user, settle=3, resources="{memory: 64MiB}")
    assert seen["causes"] == ["quota"], seen
    assert "memory" in seen["failures"][0]


def test_processor_time_beyond_the_quota_is_held_back(work: Path, user: int, tmp_path: Path) -> None:
    seen = run(tmp_path, work, 8, user, settle=2.5, resources='{cpu: "0.1"}')
    assert seen["exhausted"] == ["cpu"], seen
    assert not seen["failures"], seen


def test_storage_ends_where_it_is_full(work: Path, user: int, tmp_path: Path) -> None:
    seen = run(tmp_path, work, 9, user, settle=2.5, resources="{storage: 4MiB}")
    assert answers(seen)["one file"] <= 4, "RLIMIT_FSIZE, in MiB"
    if user == 0:
        assert answers(seen)["storage ended with"] == errno.ENOSPC
        assert seen["exhausted"] == ["storage"]
    else:
        assert seen["causes"] == ["quota"], seen


def test_files_on_their_way_over_a_socket_end_it(work: Path, user: int, tmp_path: Path) -> None:
    """They have no name and no descriptor; a file system counts them all the same."""
    seen = run(tmp_path, work, 16, user, settle=2.5, resources="{storage: 4MiB}")
    assert answers(seen)["hidden ended with"] == (errno.ENOSPC if user == 0 else 0)
    assert seen["causes"] == ([] if user == 0 else ["quota"]), seen
    assert user == 0 or "descriptors on their way" in seen["failures"][0]


def test_without_a_grant_nothing_can_be_written(work: Path, user: int, tmp_path: Path) -> None:
    seen = run(tmp_path, work, 9, user)
    assert answers(seen)["storage ended with"] in {errno.EPERM, errno.ENOENT}


def listening(path: Path, user: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    made.bind(str(path))
    path.chmod(0o777)
    os.chown(path, user, user)
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made


def runs(name: str) -> bool:
    """Whether a process of this name has been started."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if path.read_text().strip() == name:
                return True
    return False


def test_it_connects_to_no_socket_that_it_may_read(work: Path, user: int, tmp_path: Path) -> None:
    """Neither by its name, nor by an address that changes while it is looked at, nor where it was made later."""
    granted = work / "granted"
    granted.mkdir(mode=0o755)
    os.chown(granted, user, user)
    with listening(granted / "stream", user) as stream:
        security = "{sandbox: true, seccomp_profile: baseline, read_paths: [granted]}"
        made: list[socket.socket] = []

        def make_later() -> None:
            until = time.monotonic() + 60
            while not runs("plugin") and time.monotonic() < until:
                time.sleep(0.01)
            made.append(listening(granted / "later", user))

        thread = threading.Thread(target=make_later)
        thread.start()
        seen = run(tmp_path, work, 6, user, granted=str(granted), security=security)
        thread.join()
        assert "stdout: tried sockets" in seen["log"], seen
        found = answers(seen)
        assert {found[name] for name in ("stream", "dots", "later")} == {errno.EACCES}
        assert {found[name] for name in ("datagram", "pair")} == {errno.EPERM}
        assert not seen["failures"], "the host's own socket is reached all the same"
        for each in (stream, *made):
            with pytest.raises(BlockingIOError):
                each.accept()
            each.close()


def test_names_of_threads_and_addresses_harm_nobody(work: Path, user: int, tmp_path: Path) -> None:
    """A name can be any bytes, also some that look like a line of the kernel's; an address can lie where no file reaches."""
    seen = run(tmp_path, work, 10, user, settle=2.5, resources='{memory: 64MiB, cpu: "1.0"}')
    assert "stdout: tried names" in seen["log"], seen
    found = answers(seen)
    assert (found["nameless"], found["forged"], found["kernel address"]) == (0, 0, errno.EFAULT)
    assert not seen["failures"], seen


OUT_OF_BAND = ("send", "recv", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg")


def test_it_uses_no_out_of_band_data(work: Path, user: int, tmp_path: Path) -> None:
    """Little used, and with errors in the kernel before."""
    seen = run(tmp_path, work, 15, user)
    assert answers(seen) == {**dict.fromkeys(OUT_OF_BAND, errno.EPERM), "ordinary": 0}
    assert not seen["failures"], seen


def test_outside_the_same_program_uses_out_of_band_data(tmp_path: Path) -> None:
    """The positive control of the test above, but where a kernel does without it."""
    with (
        tempfile.TemporaryDirectory(prefix="supervm-programs-") as short,
        listening(Path(short, "stream"), os.geteuid()),
    ):
        plugin = program(tmp_path / "plugin", 15)
        command, environment = [plugin.path / "plugin"], {"SUPERVM_SOCKET": f"{short}/stream"}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            found = dict(process.stdout.readline().split() for _ in (*OUT_OF_BAND, "ordinary"))
            process.kill()
        assert found["ordinary"] == "0"
        assert {found[name] for name in OUT_OF_BAND} in ({"0"}, {str(errno.EOPNOTSUPP)})


def test_outside_the_same_program_does_connect(tmp_path: Path) -> None:
    """The positive control of the test above."""
    with (
        tempfile.TemporaryDirectory(prefix="supervm-programs-") as short,
        listening(Path(short, "stream"), os.geteuid()) as stream,
    ):
        plugin = program(tmp_path / "plugin", 6, granted=short)
        command, environment = [plugin.path / "plugin"], {"SUPERVM_SOCKET": f"{short}/stream"}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "stream 0\n"
            process.kill()
        stream.accept()[0].close()


@pytest.fixture(scope="module")
def python_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    python_image(folder / "image", ROOT / "examples/remote/ten_blocks.py")
    manifest = {
        "id": "org.example.ten-blocks",
        "name": "org.example.ten-blocks",
        "version": '"1.0.0"',
        "chain": "dev",
        "capabilities": "[block_stream]",
        "runMode": "grpc",
        "binary": '"oci:image"',
        "resources": '{memory: 96MiB, cpu: "1.5"}',
    }
    (folder / "plugin.yaml").write_text("".join(f"{key}: {value}\n" for key, value in manifest.items()))
    return folder


def test_a_plugin_in_python_lives_within_its_memory(work: Path, user: int, python_plugin: Path) -> None:
    """An interpreter with the kit, in an image: it needs more address space than memory."""
    seen = observe(python_plugin, work, ["it"], {}, user=user)["acts"]["it"]
    assert seen["log"] == ["all ten blocks are sent"], seen
    assert (seen["failures"], seen["state"]) == ([], "unloaded")
    assert "memory" in seen["confined"]["quotas"]


@pytest.mark.nodes
def test_a_plugin_in_go_lives_within_its_memory(work: Path, user: int, tmp_path: Path) -> None:
    """Go reserves 64 MiB at once, whatever it uses of them."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "plugin"
    shutil.copytree(ROOT / "build/examples/remote-go", folder)
    manifest = folder / "plugin.yaml"
    manifest.write_text(manifest.read_text().replace("memory: 256MiB", "memory: 48MiB"))
    seen = observe(folder, work, ["it"], {}, user=user)["acts"]["it"]
    assert "all blocks are sent" in [line.rpartition(": ")[2] for line in seen["log"]], seen
    assert (seen["failures"], seen["state"]) == ([], "unloaded")
