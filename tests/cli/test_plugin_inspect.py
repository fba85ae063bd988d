"""``plugin inspect`` (clauses A1, G1)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import BLOCKFILES, HELLO, supervm


def test_the_shipped_plugin() -> None:
    ran = supervm("plugin", "inspect", BLOCKFILES, "--json")
    assert ran.status == 0, ran.err
    answer = ran.json()
    assert answer["manifest"]["id"] == "org.supervm.bitcoin-blockfiles"
    assert answer["manifest"]["security"]["read_paths"] == ["blocks_dir"]
    assert answer["says"]["id"] == "org.supervm.bitcoin-blockfiles"
    assert answer["fault"] is None
    assert len(answer["library"]["sha256"]) == 64
    assert "plugin_init" in answer["library"]["exports"]
    asked = {extension["id"]: extension for extension in answer["extensions"]}
    assert set(asked) == {"supervm.block_sink/1", "supervm.config/1", "supervm.heartbeat/1", "supervm.resume/1"}
    assert all(extension["granted"] for extension in asked.values())


def test_for_people() -> None:
    ran = supervm("plugin", "inspect", HELLO)
    assert ran.status == 0, ran.err
    assert "agrees with the manifest" in ran.out
    assert "supervm.block_sink/1 (needs block_stream): granted" in ran.out


def test_without_loading_nothing_is_asked() -> None:
    answer = supervm("plugin", "inspect", HELLO, "--no-load", "--json").json()
    assert answer["says"] is None
    assert answer["extensions"]


def test_a_disagreement_is_shown_and_fails(tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    shutil.copytree(HELLO, folder)
    manifest = folder / "plugin.yaml"
    manifest.write_text(manifest.read_text().replace("[block_stream]", "[submit_tx]"))
    ran = supervm("plugin", "inspect", folder, "--json")
    assert ran.status == 1
    answer = ran.json()
    assert "capabilities is ['block_stream'] in the binary" in answer["fault"]
    assert not next(item for item in answer["extensions"] if item["id"] == "supervm.block_sink/1")["granted"]


def test_what_is_no_plugin_is_named(tmp_path: Path) -> None:
    ran = supervm("plugin", "inspect", tmp_path)
    assert ran.status == 2
    assert "plugin.yaml: no such file" in ran.err
    folder = tmp_path / "plugin"
    shutil.copytree(HELLO, folder)
    (folder / "hello.so").write_bytes(b"not a library")
    ran = supervm("plugin", "inspect", folder)
    assert ran.status == 1
    assert "hello" in ran.err


LEAVES = """
#include <stdlib.h>
const char *plugin_get_manifest_json(void) { return "{}"; }
int plugin_init(void *host) { return host == 0; }
int plugin_start(void) { return 0; }
int plugin_stop(void) { return 0; }
void plugin_free_string(char *text) { (void)text; }
__attribute__((constructor)) static void leave(void) { LEAVE; }
"""


def leaving(folder: Path, leave: str, *options: str) -> Path:
    """A plugin whose library does this while it is loaded."""
    plugin = folder / "plugin"
    shutil.copytree(HELLO, plugin)
    (folder / "leaves.c").write_text(LEAVES)
    command = ["cc", "-shared", "-fPIC", f"-DLEAVE={leave}", *options]
    subprocess.run([*command, "-o", plugin / "hello.so", folder / "leaves.c"], check=True)
    return plugin


@pytest.mark.parametrize(
    ("leave", "options", "says"),
    [
        ("_Exit(0)", (), "its process ended by itself with status 0"),
        ("_Exit(3)", (), "its process ended by itself with status 3"),
        ("abort()", (), "it crashed (SIGABRT)"),
        ("_Exit(0)", ("--without-sandbox",), "loading it ended the process with status 0"),
        ("abort()", ("--without-sandbox",), "loading it ended the process by signal 6"),
    ],
)
def test_a_library_that_ends_its_process_is_told(tmp_path: Path, leave: str, options: tuple[str, ...], says: str) -> None:
    ran = supervm("plugin", "inspect", leaving(tmp_path, leave), *options, "--json")
    assert ran.status == 1
    assert says in ran.json()["fault"]


def test_its_code_has_no_rights_while_it_is_asked(tmp_path: Path) -> None:
    """Only where that was asked for."""
    mark = tmp_path / "mark"
    plugin = leaving(tmp_path, f'fopen("{mark}", "w")', "-include", "stdio.h")
    assert supervm("plugin", "inspect", plugin, "--json").status == 1
    assert not mark.exists()
    supervm("plugin", "inspect", plugin, "--json", "--without-sandbox")
    assert mark.exists()


def test_a_missing_export_is_told_without_loading(tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    shutil.copytree(HELLO, folder)
    (tmp_path / "empty.c").write_text("int nothing;")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "hello.so", tmp_path / "empty.c"], check=True)
    assert "does not export plugin_" in supervm("plugin", "inspect", folder, "--no-load", "--json").json()["fault"]
