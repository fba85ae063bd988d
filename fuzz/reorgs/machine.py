"""Invariant: as in ``fuzz.reorgs.world``; here hypothesis chooses the steps, and finds the shortest story that breaks it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from fuzz.reorgs.choices import LENGTH, Choices
from fuzz.reorgs.world import STEPS, World

CHOICES = st.binary(min_size=LENGTH, max_size=LENGTH)
FAILURES = Path(os.environ.get("FUZZ_FAILURES", "build/fuzz/failures/reorg-machine"))
"""The vector files of the last failing story: hypothesis ends with the shortest."""


class ReorgMachine(RuleBasedStateMachine):
    """One world. Run it with ``hypothesis.stateful.run_state_machine_as_test``."""

    steps: ClassVar[int] = 0
    """Of all worlds so far."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(setup=CHOICES)
    def _begin(self, setup: bytes) -> None:
        self.world = World(setup)

    def _step(self, name: str, choices: bytes) -> None:
        assert self.world is not None
        ReorgMachine.steps += 1
        try:
            STEPS[name](self.world, Choices(choices))
        except Exception:
            paths = self.world.write_vectors(FAILURES)
            print("vector files:", *paths, file=sys.stderr)
            raise

    @rule(choices=CHOICES)
    def sends_a_block(self, choices: bytes) -> None:
        """Mostly this: it is offered twice."""
        self._step("block", choices)

    @rule(choices=CHOICES)
    def sends_another_block(self, choices: bytes) -> None:
        """See above."""
        self._step("block", choices)

    @rule(choices=CHOICES)
    def sends_a_branch(self, choices: bytes) -> None:
        """Long enough for a deep reorg, or nearly."""
        self._step("branch", choices)

    @rule(choices=CHOICES)
    def says_final(self, choices: bytes) -> None:
        """A statement of finality."""
        self._step("final", choices)

    @rule(choices=CHOICES)
    def announces_a_reorg(self, choices: bytes) -> None:
        """A statement of reorg."""
        self._step("reorg", choices)

    @rule(choices=CHOICES)
    def another_plugin_goes_on(self, choices: bytes) -> None:
        """Positions are each plugin's own."""
        self._step("other_plugin", choices)

    @rule(choices=CHOICES)
    def reopens(self, choices: bytes) -> None:
        """The store is closed and opened."""
        self._step("reopen", choices)

    @rule(choices=CHOICES)
    def consumes(self, choices: bytes) -> None:
        """A consumer comes, goes, or reads some events."""
        self._step("consume", choices)

    @rule(choices=CHOICES)
    def compares(self, choices: bytes) -> None:
        """The digest, of everything."""
        self._step("compare", choices)

    def teardown(self) -> None:
        """Compares once more, unless a step has failed, and removes the store."""
        if self.world is None:
            return
        try:
            if sys.exc_info()[0] is None:
                self._step("compare", b"")
        finally:
            self.world.close()
