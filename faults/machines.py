"""Faults for the reorg machine and the lifecycle machine: each campaign finds each of its own within a minute."""

from __future__ import annotations

from faults.fault import Fault

_REORGS = ("fuzz.reorgs", "--seconds", "60", "--seed", "1")
_LIFECYCLE = ("fuzz.lifecycle", "--seconds", "60", "--seed", "1")

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="tie-goes-to-the-newcomer",
        meaning="a branch as heavy as the canonical one replaces it",
        file="src/supervm_rt/chain/tracker.py",
        old="        return best if best.total > tip.total else None\n",
        new="        return best if best.total >= tip.total else None\n",
        caught_by=_REORGS,
    ),
    Fault(
        name="one-orphan-too-many",
        meaning="the orphan pool holds one block more than its bound",
        file="src/supervm_rt/chain/orphans.py",
        old="        while self._by_hash and len(self._by_hash) >= self._limit:\n",
        new="        while self._by_hash and len(self._by_hash) > self._limit:\n",
        caught_by=_REORGS,
    ),
    Fault(
        name="claim-lost-at-reopening",
        meaning="what final blocks said about blocks to come is forgotten when the store is closed",
        file="src/supervm_rt/store/mirror.py",
        old="                self._tracker.final_claim,\n",
        new="                None,\n",
        caught_by=_REORGS,
    ),
    Fault(
        name="deep-side-branch-survives-finality",
        meaning="finality cuts off the first blocks of a side branch only, not what is built upon them",
        file="src/supervm_rt/chain/window.py",
        old="            pending.extend(node.children)\n",
        new="            pending.extend(())\n",
        caught_by=_REORGS,
    ),
    Fault(
        name="long-reorg-loses-an-undo",
        meaning="a reorg of more than twelve blocks does not undo the lowest of them",
        file="src/supervm_rt/chain/window.py",
        old="        self.tip = target\n        return left, joined\n",
        new="        self.tip = target\n        return left[:-1] if len(left) > 12 else left, joined\n",
        caught_by=_REORGS,
    ),
    Fault(
        name="cancelled-load-is-left",
        meaning="a library whose loading was cancelled is not waited for, and so not unloaded",
        file="src/supervm_rt/transports/native/in_process.py",
        old="            plugin, calls = await self._what_was_loaded(), tuple(self._calls)\n",
        new="            plugin, calls = self._plugin, tuple(self._calls)\n",
        caught_by=_LIFECYCLE,
    ),
    Fault(
        name="cancelled-init-is-not-stopped",
        meaning="a plugin that was stopped while plugin_init ran never gets its plugin_stop",
        file="src/supervm_rt/runtime/supervisor.py",
        old="            if self._state not in {PluginState.REGISTERED, PluginState.LOADING}:\n",
        new="            if self._state not in {PluginState.REGISTERED, PluginState.LOADING, PluginState.INITIALISING}:\n",
        caught_by=_LIFECYCLE,
    ),
    Fault(
        name="last-words-are-dropped",
        meaning="what a plugin published before it was stopped is not taken",
        file="src/supervm_rt/runtime/supervisor.py",
        old="                await self._take_rest(transport)\n",
        new="                await trio.lowlevel.checkpoint()\n",
        caught_by=_LIFECYCLE,
    ),
    Fault(
        name="batch-is-lost-when-cancelled",
        meaning="a batch that was taken out of the ring can be cancelled before it is committed",
        file="src/supervm_rt/runtime/supervisor.py",
        old="                with trio.CancelScope(shield=True):\n                    batch = await self._take(received)\n",
        new="                with trio.CancelScope():\n                    batch = await self._take(received)\n",
        caught_by=_LIFECYCLE,
    ),
    Fault(
        name="init-under-way-is-not-stopped",
        meaning="plugin_stop is not called where plugin_init is still under way, and is where it failed",
        file="src/supervm_rt/transports/native/in_process.py",
        old="            if self._initialising is None or await self._initialising.wait(self._deadlines.stop) != 0:\n",
        new="            if self._initialising is None or self._initialising.running:\n",
        caught_by=_LIFECYCLE,
    ),
)
