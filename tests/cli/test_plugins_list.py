"""What a running node says of its plugins: where each runs, how confined, and what enforces its quotas (clauses L1, M1)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.cli.support import BLOCKFILES, SAMPLE_BLOCKS, command, supervm

MEANS = {
    "cpu": {"cgroup v2", "cgroup v1", "polling"},
    "memory": {"cgroup v2, rlimit", "cgroup v1, rlimit", "rlimit"},
    "storage": {"file system", "polling"},
}


def plugin(folder: Path, *, sandbox: bool) -> Path:
    shutil.copytree(BLOCKFILES, folder)
    fields = yaml.safe_load((folder / "plugin.yaml").read_text())
    fields["resources"] = {"cpu": "1.5", "memory": "512MiB", "storage": "4MiB"}
    fields["security"] |= {"sandbox": sandbox}
    (folder / "plugin.yaml").write_text(yaml.safe_dump(fields))
    return folder


@contextmanager
def running(folder: Path, store: Path) -> Iterator[subprocess.Popen[str]]:
    """A node that has mirrored the sample chain and waits for more."""
    settings = [f"blocks_dir={SAMPLE_BLOCKS}", "network=regtest", "follow=true"]
    options = ["--policy", "dev", "--store", store, *(word for setting in settings for word in ("--set", setting))]
    with subprocess.Popen(command("mirror", "--plugin", folder, *options), stderr=subprocess.PIPE, text=True) as node:
        try:
            assert node.stderr is not None
            assert any("everything readable" in line for line in node.stderr)
            yield node
        finally:
            node.kill()


def test_it_says_where_each_runs_and_what_enforces_its_quotas(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    with running(plugin(tmp_path / "plugin", sandbox=True), store) as node:
        answer = supervm("plugins", "list", "--store", store, "--json").json()
        shown = supervm("plugins", "list", "--store", store).out
        assert answer["process"] == node.pid
    (found,) = answer["plugins"]
    assert (found["state"], found["generation"], found["placement"], found["failure"]) == ("running", 1, "child", None)
    assert found["sandbox"] == "full"
    assert found["confinement"]["degraded"] is False
    assert found["confinement"]["seccomp_profile"] == "baseline"
    assert found["quotas"].keys() == MEANS.keys()
    for quota, means in found["quotas"].items():
        assert means in MEANS[quota], quota
        assert f"{quota} by {means}" in shown
    if os.geteuid() == 0:
        assert found["quotas"]["storage"] == "file system"


def test_in_process_there_is_no_sandbox_and_no_quota(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    with running(plugin(tmp_path / "plugin", sandbox=False), store):
        (found,) = supervm("plugins", "list", "--store", store, "--json").json()["plugins"]
    assert (found["placement"], found["sandbox"], found["quotas"]) == ("in-process", "none", {})


@pytest.mark.parametrize(("store", "says"), [("store.db", "no node has the store"), ("none.db", "cannot be looked at")])
def test_where_no_node_runs_it_says_so(tmp_path: Path, store: str, says: str) -> None:
    (tmp_path / "store.db").touch()
    ran = supervm("plugins", "list", "--store", tmp_path / store)
    assert ran.status == 1
    assert says in ran.err
