"""The one place that is asked whether a plugin may load and what it may do (clauses P1 to P3, S1, S2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from supervm_rt.model.manifest import Capability, Manifest


class PolicyLevel(enum.StrEnum):
    """How much proof a host asks of a plugin."""

    DEV = "dev"
    PERMISSIVE = "permissive"
    STRICT = "strict"


class Placement(enum.StrEnum):
    """Where a plugin's code runs."""

    IN_PROCESS = "in-process"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy answered, and why: kept as it is for the audit log."""

    level: PolicyLevel
    allowed: bool
    reason: str
    remedy: str = ""
    capabilities: frozenset[Capability] = frozenset()
    placement: Placement | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A host's policy. Asked once for every load, with the digest of the very bytes that would be loaded."""

    level: PolicyLevel = PolicyLevel.STRICT

    def decide(self, manifest: Manifest, binary_sha256: bytes) -> Decision:
        """Whether the plugin may load, where it runs and which capabilities it is granted."""
        if self.level is not PolicyLevel.DEV:
            return Decision(
                self.level,
                allowed=False,
                reason=(
                    f"policy {self.level} loads only plugins whose signature was verified and that run in a sandbox, "
                    "and this version of supervm-rt can do neither"
                ),
                remedy="run with --policy dev, on a machine and with plugins that you trust",
            )
        warnings = []
        if manifest.signature is not None:
            warnings.append("its signature was not verified (policy dev)")
        if manifest.security.sandbox:
            warnings.append("it asks for a sandbox, and runs in the host's process with the host's rights (policy dev)")
        return Decision(
            self.level,
            allowed=True,
            reason=f"policy dev loads any plugin (binary sha256:{binary_sha256.hex()})",
            capabilities=manifest.capabilities,
            placement=Placement.IN_PROCESS,
            warnings=tuple(warnings),
        )
