"""A PostgreSQL server of the tests' own: an empty cluster in a temporary folder, reached through a socket there."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

START_DEADLINE = 60.0
STOP_DEADLINE = 30.0


def binaries() -> Path | None:
    """The folder that holds initdb and postgres: SUPERVM_POSTGRES, or where Debian puts the newest."""
    named = os.environ.get("SUPERVM_POSTGRES")
    if named:
        return Path(named)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    somewhere = shutil.which("initdb")
    return Path(somewhere).resolve().parent if somewhere else None


class Postgres:
    """``with Postgres(folder) as server:`` runs it for as long as the block lasts; nothing of it stays."""

    def __init__(self, folder: Path) -> None:
        self._binaries = folder
        self._data = Path()
        self._process: subprocess.Popen[bytes] | None = None
        # The server refuses to run as root.
        self._user = None if os.geteuid() else pwd.getpwnam("nobody")

    @property
    def connection(self) -> str:
        """How it is reached."""
        return f"host={self._data} user=supervm dbname=postgres"

    def __enter__(self) -> Self:
        self._data = Path(tempfile.mkdtemp(prefix="postgres-"))
        try:
            if self._user is not None:
                os.chown(self._data, self._user.pw_uid, self._user.pw_gid)
            cluster = self._data / "cluster"
            options = ("-U", "supervm", "-A", "trust", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8")
            made = self._start("initdb", "-D", str(cluster), *options)
            if made.wait(START_DEADLINE):
                raise AssertionError(f"initdb failed:\n{self.log()}")
            self._process = self._start(
                "postgres", "-D", str(cluster), "-k", str(self._data), "-c", "listen_addresses=", "-c", "fsync=off"
            )
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def log(self) -> str:
        """The last lines of what it printed."""
        path = self._data / "log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-20:]) if path.exists() else ""

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        setpriv = shutil.which("setpriv")
        # The kernel ends it should this process be killed.
        dies_with_us = (setpriv, "--pdeathsig", "INT", "--") if setpriv else ()
        with (self._data / "log").open("ab") as log:
            return subprocess.Popen(
                [*dies_with_us, str(self._binaries / name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._data,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"},
                start_new_session=True,
                user=None if self._user is None else self._user.pw_uid,
                group=None if self._user is None else self._user.pw_gid,
                extra_groups=None if self._user is None else [],
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while True:
            assert self._process is not None
            assert self._process.poll() is None, f"postgres ended while starting:\n{self.log()}"
            try:
                psycopg.connect(self.connection, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, f"postgres did not answer:\n{self.log()}"
            time.sleep(0.05)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)  # "fast": open sessions are ended
            try:
                process.wait(STOP_DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._data, ignore_errors=True)
