"""What tests of the sandbox share: the attacker, compiled with its manifest, and processes of an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import supervm_rt

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).parent / "plugins"
ORDINARY_USER = 4321


def as_user(user: int) -> list[str]:
    """The words before a command that is to run as this user; it may still read the interpreter, wherever that lies."""
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


def observe(
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
) -> dict[str, Any]:
    """Runs the acts in a node of its own, as this user. See host_process. ``seconds``: how long a plugin may take to
    stop; ``settle``: how long it is watched once it was started; ``level``: of the policy, which takes every plugin for a
    verified one; ``prefix``: words before the command."""
    command = [*prefix, *as_user(user), sys.executable, "-m", "tests.sandbox.host_process"]
    command += [
        str(folder),
        str(work / "store.db"),
        json.dumps(settings),
        str(seconds),
        str(initialise),
        str(settle),
        level,
        *acts,
    ]
    environment = {**os.environ, "HOME": str(work)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
