"""The one place that is asked (clauses P1 to P3, S2)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervm_rt.model.manifest import Capability, Manifest, RunMode, Security
from supervm_rt.model.network import Network
from supervm_rt.trust.network import NetworkPolicy, parse_network
from supervm_rt.trust.policy import Placement, Policy, PolicyLevel

MANIFEST = Manifest(
    id="org.example.p",
    name="p",
    version="1.0.0",
    chain="dev",
    capabilities=frozenset({Capability.BLOCK_STREAM}),
    binary="p.so",
    security=Security(sandbox=False),
)


def test_strict_is_the_default() -> None:
    assert Policy().level is PolicyLevel.STRICT


@pytest.mark.parametrize("level", [PolicyLevel.PERMISSIVE, PolicyLevel.STRICT])
def test_anything_but_dev_refuses_and_explains(level: PolicyLevel) -> None:
    decision = Policy(level).decide(MANIFEST, b"\0" * 32)
    assert not decision.allowed
    assert decision.capabilities == frozenset()
    assert decision.placement is None
    assert "signature" in decision.reason
    assert "--policy dev" in decision.remedy


def test_dev_loads_in_process_what_the_manifest_asks_for() -> None:
    decision = Policy(PolicyLevel.DEV).decide(MANIFEST, b"\x01" * 32)
    assert decision.allowed
    assert decision.capabilities == {Capability.BLOCK_STREAM}
    assert decision.placement is Placement.IN_PROCESS
    assert "01" * 32 in decision.reason
    assert decision.warnings == ()


def test_dev_warns_of_what_it_does_not_do() -> None:
    signed = Manifest(
        id="a.b", name="p", version="1.0.0", chain="dev", capabilities=frozenset(), binary="p.so", signature="sha256:00"
    )
    warnings = Policy(PolicyLevel.DEV).decide(signed, b"\0" * 32).warnings
    assert any("not verified" in warning for warning in warnings)


@pytest.mark.parametrize("binary", ["./program", None])
def test_network_lists_grant_a_plugin_over_grpc_nothing_and_it_is_told(binary: str | None) -> None:
    lists = parse_network({"allow": ["node.example.org:8333"]})
    remote = replace(MANIFEST, run_mode=RunMode.GRPC, binary=binary, network=lists)
    decision = Policy(PolicyLevel.DEV).decide(remote, b"")
    assert decision.allowed
    assert not decision.network
    assert any("network" in warning for warning in decision.warnings)
    asked = Policy(PolicyLevel.DEV).decide(replace(remote, network=Network()), b"", network=NetworkPolicy(listen=["127.0.0.1:1"]))
    assert asked.warnings == decision.warnings
    assert Policy(PolicyLevel.DEV).decide(replace(remote, network=Network()), b"").warnings == ()


@pytest.mark.parametrize("sandbox", [True, False])
def test_a_library_is_not_somewhere_else(sandbox: bool) -> None:
    library = replace(MANIFEST, security=Security(sandbox=sandbox))
    decision = Policy(PolicyLevel.DEV).decide(library, b"\0" * 32, Placement.REMOTE)
    assert not decision.allowed
    assert "was to run as remote" in decision.reason


@pytest.mark.parametrize("wanted", [None, Placement.CHILD])
def test_one_that_asks_for_a_sandbox_gets_it(wanted: Placement | None) -> None:
    sandboxed = replace(MANIFEST, security=Security(sandbox=True))
    decision = Policy(PolicyLevel.DEV).decide(sandboxed, b"\0" * 32, wanted)
    assert decision.allowed
    assert decision.placement is Placement.CHILD
    assert "in a sandbox" in decision.reason


def test_one_that_asks_for_a_sandbox_does_not_run_in_the_host() -> None:
    sandboxed = replace(MANIFEST, security=Security(sandbox=True))
    decision = Policy(PolicyLevel.DEV).decide(sandboxed, b"\0" * 32, Placement.IN_PROCESS)
    assert not decision.allowed
    assert "asks for a sandbox" in decision.reason


def test_one_that_asks_for_none_can_be_given_one() -> None:
    assert Policy(PolicyLevel.DEV).decide(MANIFEST, b"\0" * 32, Placement.CHILD).placement is Placement.CHILD


@pytest.mark.parametrize("level", [PolicyLevel.PERMISSIVE, PolicyLevel.STRICT])
@pytest.mark.parametrize("wanted", [None, *Placement])
def test_other_levels_never_run_code_in_the_host(level: PolicyLevel, wanted: Placement | None) -> None:
    assert Policy(level).placement(MANIFEST, wanted) is Placement.CHILD


class Verified(Policy):
    """Every plugin was verified."""

    def _is_verified(self, manifest: Manifest, binary_sha256: bytes) -> bool:
        return True


@pytest.mark.parametrize("level", [PolicyLevel.PERMISSIVE, PolicyLevel.STRICT])
@pytest.mark.parametrize("sandbox", [True, False])
def test_what_was_verified_runs_in_a_sandbox_and_nowhere_else(level: PolicyLevel, sandbox: bool) -> None:
    manifest = replace(MANIFEST, security=Security(sandbox=sandbox), signature="sha256:00")
    for wanted in (None, Placement.CHILD):
        decision = Verified(level).decide(manifest, b"\x01" * 32, wanted)
        assert decision.allowed
        assert decision.placement is Placement.CHILD
        assert decision.warnings == ()
        assert f"policy {level} loads plugins that were verified" in decision.reason
    refused = Verified(level).decide(manifest, b"\x01" * 32, Placement.IN_PROCESS)
    assert not refused.allowed
    assert "process" in refused.reason
