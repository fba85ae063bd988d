"""The one place that is asked whether a plugin may load and what it may do (clauses P1 to P3, S1, S2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from supervm_rt.model.manifest import Capability, Manifest, RunMode
from supervm_rt.trust.network import NetworkGrant, NetworkPolicy


class PolicyLevel(enum.StrEnum):
    """How much proof a host asks of a plugin."""

    DEV = "dev"
    PERMISSIVE = "permissive"
    STRICT = "strict"


class Placement(enum.StrEnum):
    """Where a plugin's code runs."""

    IN_PROCESS = "in-process"
    CHILD = "child"
    REMOTE = "remote"
    """Somewhere else: the host did not start it, and nothing of the host's confines it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy answered, and why: kept as it is for the audit log."""

    level: PolicyLevel
    allowed: bool
    reason: str
    remedy: str = ""
    capabilities: frozenset[Capability] = frozenset()
    placement: Placement | None = None
    network: NetworkGrant = NetworkGrant()  # noqa: RUF009 - frozen
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A host's policy. Asked once for every load, with the digest of the very bytes that would be loaded."""

    level: PolicyLevel = PolicyLevel.STRICT

    def placement(self, manifest: Manifest, wanted: Placement | None = None) -> Placement:
        """Where a plugin's code would run. ``wanted``: the operator's choice, which counts for one that asks for no sandbox."""
        if manifest.run_mode is RunMode.GRPC:
            return Placement.REMOTE if manifest.binary is None else Placement.CHILD
        if self.level is not PolicyLevel.DEV or manifest.security.sandbox or wanted is Placement.CHILD:
            return Placement.CHILD
        return Placement.IN_PROCESS

    def decide(
        self,
        manifest: Manifest,
        binary_sha256: bytes,
        wanted: Placement | None = None,
        network: NetworkPolicy | None = None,
    ) -> Decision:
        """Whether the plugin may load, where it runs, and which capabilities and what of the network it is granted.

        ``binary_sha256`` is empty for a remote plugin that the host does not start: nothing of it can be verified.
        ``network``: what the operator says of it.
        """
        refused = self._refused_network(manifest, network)
        if refused is not None:
            return refused
        verified = self._is_verified(manifest, binary_sha256)
        if self.level is not PolicyLevel.DEV and not verified:
            return Decision(
                self.level,
                allowed=False,
                reason=(
                    f"policy {self.level} loads only plugins whose signature was verified, "
                    "and this version of supervm-rt cannot verify signatures"
                ),
                remedy="run with --policy dev, with plugins that you trust: it keeps to the sandbox that a manifest asks for",
            )
        if wanted is Placement.IN_PROCESS and manifest.security.sandbox:
            return Decision(
                self.level,
                allowed=False,
                reason="it asks for a sandbox (security.sandbox), and was to run in the host's process",
                remedy="leave placement out, or set security.sandbox: false in its manifest",
            )
        placement = self.placement(manifest, wanted)
        if wanted not in {None, placement}:
            by = "" if self.level is PolicyLevel.DEV else f" under policy {self.level}"
            return Decision(
                self.level,
                allowed=False,
                reason=f"a plugin with runMode {manifest.run_mode} runs as {placement}{by}, and was to run as {wanted}",
                remedy="leave placement out",
            )
        warnings = []
        if manifest.signature is not None and not verified:
            warnings.append(f"its signature was not verified (policy {self.level})")
        granted = NetworkGrant(manifest.network, network or NetworkPolicy())
        if manifest.run_mode is RunMode.GRPC:
            granted = NetworkGrant()
            if manifest.network or network is not None:
                warnings.append(
                    "its network lists grant it nothing: only libraries can ask for the network"
                    if placement is Placement.CHILD
                    else "its network lists count for nothing: the host does not confine what it did not start"
                )
        where = {
            Placement.CHILD: "in a sandbox",
            Placement.IN_PROCESS: "in the host's own process, with the host's rights",
            Placement.REMOTE: "wherever it was started",
        }[placement]
        binary = f" (binary sha256:{binary_sha256.hex()})" if binary_sha256 else ""
        return Decision(
            self.level,
            allowed=True,
            reason=f"policy {self.level} loads {'plugins that were verified' if verified else 'any plugin'}; "
            f"this one runs {where}{binary}",
            capabilities=manifest.capabilities,
            placement=placement,
            network=granted,
            warnings=tuple(warnings),
        )

    def _is_verified(self, manifest: Manifest, binary_sha256: bytes) -> bool:
        """Whether these very bytes come from somebody whom the operator trusts: no signature can be verified yet."""
        return False

    def _refused_network(self, manifest: Manifest, network: NetworkPolicy | None) -> Decision | None:
        """Strict asks the operator for each list that a manifest has; an empty one is an answer."""
        if self.level is not PolicyLevel.STRICT:
            return None
        asked = [name for name in ("allow", "listen") if getattr(manifest.network, name)]
        missing = [f"network.{name}" for name in asked if network is None or getattr(network, name) is None]
        if not missing:
            return None
        return Decision(
            self.level,
            allowed=False,
            reason=f"its manifest asks for {' and '.join(missing)}, and policy strict needs the operator's own list",
            remedy="write under network: of this plugin in the node's configuration what it may reach; [] grants nothing",
        )
