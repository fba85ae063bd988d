"""The runtime as its users start it: a process of its own, asked through the command line, killed or stopped by its owner."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "bitcoin-blockfiles"
CALL_DEADLINE = 60.0
STOP_DEADLINE = 20.0
WAIT_DEADLINE = 60.0

_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def command(*arguments: str) -> list[str]:
    """The command line of ``python -m supervm_rt``."""
    return [sys.executable, "-m", "supervm_rt", *arguments]


def mirror_command(blocks_folder: Path, store: Path, *, follow: bool, plugin: Path = PLUGIN) -> list[str]:
    """Mirrors a regtest node's blocks folder: for as long as it runs, or to the end of what is there."""
    settings = {"blocks_dir": str(blocks_folder), "network": "regtest", "follow": json.dumps(follow)}
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    if not follow:
        options += ["--until-idle", "--json"]
    return command("mirror", "--plugin", str(plugin), *options, "--policy", "dev", "--store", str(store))


def ask(*arguments: str) -> Any:
    """What a command answers as JSON. Raises AssertionError with what it printed where it fails."""
    [answer] = ask_lines(*arguments)
    return answer


def ask_lines(*arguments: str) -> list[Any]:
    """The same of a command that answers with one value per line."""
    done = subprocess.run(
        command(*arguments, "--json"), capture_output=True, text=True, timeout=CALL_DEADLINE, env=_ENVIRONMENT, check=False
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr}{done.stdout}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def plugin_in_process(folder: Path) -> Path:
    """A copy whose manifest asks for no sandbox: policy dev runs it in the host's own process."""
    shutil.copytree(PLUGIN, folder)
    manifest = folder / "plugin.yaml"
    manifest.write_text(manifest.read_text().replace("sandbox: true", "sandbox: false"))
    return folder


def mirror_all(blocks_folder: Path, store: Path, *, plugin: Path = PLUGIN) -> dict[str, Any]:
    """Fills a store from scratch; the run's summary."""
    done = subprocess.run(
        mirror_command(blocks_folder, store, follow=False, plugin=plugin),
        capture_output=True,
        text=True,
        timeout=CALL_DEADLINE,
        env=_ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert ("sandboxed" in done.stderr) == (plugin == PLUGIN), done.stderr
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


class Follower:
    """``with Follower(blocks_folder, store) as runtime:`` follows a running node's block files."""

    def __init__(self, blocks_folder: Path, store: Path, log: Path) -> None:
        self._command = mirror_command(blocks_folder, store, follow=True)
        self._store = store
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Starts the process. It must not be running."""
        assert self._process is None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=_ENVIRONMENT
            )

    def kill(self) -> None:
        """SIGKILL: nothing of it gets to run again."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> int:
        """SIGTERM, as a service manager does; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(STOP_DEADLINE)
        self._process = None
        return status

    def wait_for_tip(self, hash_: str) -> None:
        """Until the store's tip is this block. Raises AssertionError with the log where the runtime ends or time is up."""
        self.wait_until(lambda: self._store.exists() and _tip_hash(self._store) == hash_, f"the tip to be {hash_}")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Until the condition holds."""
        deadline = time.monotonic() + WAIT_DEADLINE
        while not condition():
            assert self._process is not None
            assert self._process.poll() is None, f"the runtime ended with {self._process.returncode}:\n{self.log()}"
            assert time.monotonic() < deadline, f"waited {WAIT_DEADLINE:.0f} s for {what}:\n{self.log()}"
            time.sleep(0.05)

    def log(self) -> str:
        """The last lines of what it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])


def _tip_hash(store: Path) -> str | None:
    """The tip, or None while the store is being made or holds no chain yet."""
    done = subprocess.run(
        command("chain", "tip", "bitcoin", "--store", str(store), "--json"),
        capture_output=True,
        text=True,
        timeout=CALL_DEADLINE,
        env=_ENVIRONMENT,
        check=False,
    )
    return str(json.loads(done.stdout)["hash"]) if done.returncode == 0 else None
