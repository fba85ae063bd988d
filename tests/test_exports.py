"""What a user can import and install is what is promised, on purpose."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import supervm_rt

ROOT = Path(__file__).parents[1]

PUBLIC = [
    "AssignedResources",
    "BlockRef",
    "Capability",
    "ChainEvent",
    "ChainSummary",
    "Deadlines",
    "EventKind",
    "Feed",
    "FeedEvent",
    "ForkMode",
    "HostEvent",
    "Kept",
    "Last",
    "Manifest",
    "NetworkPolicy",
    "PluginConfig",
    "PluginState",
    "PluginStatus",
    "PolicyLevel",
    "Reason",
    "Registration",
    "Rejection",
    "RestartLimits",
    "RestartPolicy",
    "Retention",
    "Runtime",
    "RuntimeConfig",
    "Severity",
    "Step",
    "Store",
    "Subscription",
    "SubscriptionStatistics",
    "SuperVMError",
    "Verdict",
    "__version__",
    "get_include",
    "open_feed",
    "open_runtime",
]


def test_public_names_are_these() -> None:
    assert sorted(supervm_rt.__all__) == PUBLIC
    assert all(hasattr(supervm_rt, name) for name in PUBLIC)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_public_names_are_documented(name: str) -> None:
    assert getattr(supervm_rt, name).__doc__


def test_headers_are_where_get_include_says() -> None:
    assert (Path(supervm_rt.get_include()) / "supervm/supervm.h").is_file()


def test_the_wheel_ships_headers_types_plugin_and_sample_chain(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-build-isolation",
        "--no-deps",
    ]
    subprocess.run([*command, "--wheel-dir", tmp_path, ROOT], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    for header in (ROOT / "include/supervm").glob("*.h"):
        assert f"supervm_rt/include/supervm/{header.name}" in names
    assert {"supervm_rt/py.typed", "supervm_rt/_abi.pyi", "supervm_rt/ir/_bitcoin.pyi"} <= names
    remote = "supervm_rt/transports/remote"
    assert {f"{remote}/_frames.pyi", f"{remote}/messages_generated/descriptors.binpb"} <= names
    assert {"supervm_rt/trust/manifest.schema.json", "supervm_rt/runtime/config.schema.json"} <= names
    assert "supervm_rt/plugins/bitcoin-blockfiles/bitcoin-blockfiles.so" in names
    assert {"supervm_rt/bin/supervm-runner", "supervm_rt/bin/supervm-launch"} <= names
    assert not [name for name in names if name.endswith((".c", ".pyx")) or "/tests/" in name]
    ran = subprocess.run(
        [sys.executable, "-m", "supervm_rt", "demo", "--json"],
        cwd=tmp_path / "installed",
        env={"PYTHONPATH": str(tmp_path / "installed"), "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert str(tmp_path / "installed") in ran.stderr, "the installed plugin and chain were used"
    assert "sandboxed" in ran.stderr
    assert '"height": 312' in ran.stdout
