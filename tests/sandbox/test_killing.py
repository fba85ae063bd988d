"""What is killed is gone, at whatever moment (clause L5)."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from supervm_rt.transports.native.child.ending import kill
from supervm_rt.transports.native.child.host import machine, namespaces
from tests.remote.remains import nothing_left


def children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_killed_while_the_sandbox_is_made_nothing_of_it_waits_for_ever() -> None:
    """bubblewrap's second process waits to be told who it is, and is not bound to the life of the first yet."""
    here = machine()
    if here.bubblewrap is None:
        pytest.skip(f"no sandbox here: {here.why_degraded}")
    block, unblock = os.pipe()
    read, written = os.pipe()
    try:
        with nothing_left():
            command = [str(here.bubblewrap), *namespaces(disables=False), "--ro-bind", "/", "/"]
            command += ["--info-fd", str(written), "--userns-block-fd", str(block), "--", "/bin/true"]
            with subprocess.Popen(command, pass_fds=(block, written), start_new_session=True) as process:
                deadline = time.monotonic() + 20
                while not children(process.pid) and time.monotonic() < deadline:
                    time.sleep(0.002)
                assert children(process.pid)
                kill(process)
    finally:
        for descriptor in (block, unblock, read, written):
            os.close(descriptor)
