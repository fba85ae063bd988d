"""What tests of the sandbox share: the attacker, compiled with its manifest, and processes of an ordinary user."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import supervm_rt

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).parent / "plugins"
ORDINARY_USER = 4321


def as_user(user: int) -> list[str]:
    """The words before a command that is to run as this user; it may still read the interpreter, wherever that lies: it keeps
    CAP_DAC_READ_SEARCH, and no other right."""
    if user == os.geteuid():
        return []
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return [*words, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def without_namespaces(folder: Path) -> list[str]:
    """The words before a command that is to run where nobody can make a user namespace, and bubblewrap cannot work.

    ``folder``: empty, to be the root of root's; an ordinary user comes there by a sandbox that allows no further one.
    """
    if os.geteuid() != 0:
        user = str(ORDINARY_USER)
        return ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", user, "--gid", user, "--disable-userns"]
    # The kernel makes no user namespace for who is in a chroot.
    enter = 'mount --rbind / "$1" && exec chroot "$@"'
    return ["unshare", "--mount", "sh", "-c", enter, "sh", str(folder), "sh", "-c", f'cd "{ROOT}" && exec "$@"', "sh"]


def users() -> list[int]:
    """As whom each attack is tried: root where the tests are root, and an ordinary user."""
    return [0, ORDINARY_USER] if os.geteuid() == 0 else [os.geteuid()]


@dataclass(frozen=True)
class Aim:
    """What attacks go for: a secret of the user, a port that listens, a process of the user; and what may be read."""

    user: int
    work: Path
    secret: Path
    granted: Path
    port: int
    process: int

    @property
    def settings(self) -> dict[str, object]:
        return {
            "secret": str(self.secret),
            "port": str(self.port),
            "process": str(self.process),
            "granted": str(self.granted),
        }


def make_aim(user: int, base: Path) -> Iterator[Aim]:
    """What is aimed at, in this folder, while it lasts."""
    base.chmod(0o755)
    work, granted = base / "work", base / "granted"
    for folder in (work, granted):
        folder.mkdir(mode=0o700)
    secret = work / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    (granted / "file").write_text("granted")
    for path in (work, granted, secret, granted / "file"):
        os.chown(path, user, user)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen([*as_user(user), "sleep", "300"]) as sleeper,
    ):
        yield Aim(user, work, secret, granted, server.getsockname()[1], sleeper.pid)
        sleeper.kill()


def inheritable() -> Iterator[list[int]]:
    """Twenty descriptors that whoever is started may inherit."""
    with contextlib.ExitStack() as files:
        yield [files.enter_context(Path("/etc/passwd").open("rb")).fileno() for _ in range(20)]


def try_outside(
    control: Path, attack: str, aim: Aim, folder: Path, inherited: Sequence[int] = ()
) -> subprocess.CompletedProcess[str]:
    """The attack by a program without a sandbox, which works in this folder: what it prints is what it answered."""
    command = [*as_user(aim.user), str(control), attack, str(aim.secret), str(aim.port), str(aim.process)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=folder, pass_fds=inherited
    )


def compile_c(source: str, target: Path, *options: str) -> Path:
    """Compiles one of ``plugins/``."""
    command = [
        "cc",
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-O1",
        "-g",
        "-fPIC",
        "-Wall",
        "-Wno-unused-function",
        "-Wno-unused-result",
        f"-I{supervm_rt.get_include()}",
    ]
    subprocess.run([*command, *options, "-pthread", "-o", target, SOURCES / source], check=True)
    return target


def make_attacker(folder: Path, *options: str, profile: str = "baseline", read_paths: str = "[granted]", **fields: str) -> Path:
    """The attacker in a folder of its own."""
    folder.mkdir()
    compile_c("attacker.c", folder / "plugin.so", "-shared", "-fvisibility=hidden", *options)
    manifest = {
        "id": "org.example.attacker",
        "name": "attacker",
        "version": '"1.0.0"',
        "chain": "dev",
        "capabilities": "[block_stream]",
        "binary": "./plugin.so",
        "restart": "never",
        "resources": "{memory: 64MiB}",
        "security": f"{{sandbox: true, seccomp_profile: {profile}, read_paths: {read_paths}}}",
    } | fields
    (folder / "plugin.yaml").write_text("".join(f"{key}: {value}\n" for key, value in manifest.items()))
    return folder


def run_node(
    folder: Path,
    work: Path,
    acts: Sequence[str],
    settings: dict[str, object],
    *,
    user: int,
    seconds: float = 10,
    initialise: float = 60,
    settle: float = 0.2,
    prefix: Sequence[str] = (),
    level: str = "dev",
    restart: str = "never",
    inherited: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Runs the acts in a node of its own, as this user. See host_process. ``seconds``: how long a plugin may take to
    stop; ``settle``: how long it is watched once it was started; ``level``: of the policy, which takes every plugin for a
    verified one; ``prefix``: words before the command; ``inherited``: descriptors that the node leaves open to who wants them."""
    options = {
        "settings": settings,
        "stop": seconds,
        "init": initialise,
        "settle": settle,
        "level": level,
        "restart": restart,
    }
    command = [*prefix, *as_user(user), sys.executable, "-m", "tests.sandbox.host_process"]
    command += [str(folder), str(work / "store.db"), json.dumps(options), *acts]
    environment = {**os.environ, "HOME": str(work)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False, pass_fds=inherited
    )


def observe(folder: Path, work: Path, acts: Sequence[str], settings: dict[str, object], **options: Any) -> dict[str, Any]:
    """What a node that ended well saw of them. ``options``: of run_node."""
    done = run_node(folder, work, acts, settings, **options)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
