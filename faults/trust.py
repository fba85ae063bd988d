"""Faults of what decides whether a plugin may load."""

from __future__ import annotations

from faults.fault import Fault

MANIFEST = "src/supervm_rt/trust/manifest.py"
TESTS = ("pytest", "tests/trust/test_policy.py", "tests/trust/test_manifest.py", "-k", "not any_")

FAULTS = (
    Fault(
        "permissive-lets-all-in",
        "only strict refuses what was not verified",
        "src/supervm_rt/trust/policy.py",
        "if self.level is not PolicyLevel.DEV and not verified:",
        "if self.level is PolicyLevel.STRICT and not verified:",
        TESTS,
    ),
    Fault(
        "dev-is-the-default",
        "a host that says nothing loads anything",
        "src/supervm_rt/trust/policy.py",
        "level: PolicyLevel = PolicyLevel.STRICT",
        "level: PolicyLevel = PolicyLevel.DEV",
        TESTS,
    ),
    Fault(
        "version-of-the-binary-not-compared",
        "a binary of another release passes for the one that was reviewed",
        MANIFEST,
        '            ("version", manifest.version),\n',
        "",
        TESTS,
    ),
    Fault(
        "more-capabilities-than-the-manifest",
        "the binary may ask for more than it was granted",
        MANIFEST,
        "or sorted(said_capabilities) != expected_capabilities",
        "or not set(expected_capabilities) <= set(said_capabilities)",
        TESTS,
    ),
    Fault(
        "binary-outside-the-folder",
        "a manifest names a library anywhere on the machine",
        MANIFEST,
        'if binary is not None and ".." in binary.split("/"):',
        'if binary is not None and ".." == binary:',
        TESTS,
    ),
    Fault(
        "key-may-stand-twice",
        "two readers of a manifest see two values",
        "src/supervm_rt/trust/documents.py",
        "            if key in seen:\n",
        "            if key in seen and not key:\n",
        TESTS,
    ),
)
