"""Faults of the runtime: lives of plugins, and the way of a batch."""

from __future__ import annotations

from faults.fault import Fault

ADMISSION = "src/supervm_rt/runtime/admission.py"
SUPERVISOR = "src/supervm_rt/runtime/supervisor.py"
IN_PROCESS = "src/supervm_rt/transports/native/in_process.py"
FAILURES = "tests/runtime/test_failures.py"
LIVES = "tests/runtime/test_lives.py"

FAULTS = (
    Fault(
        "position-moves-past-a-lost-batch",
        "after a batch that was not committed the next one is",
        SUPERVISOR,
        "        if batch.number != self._committed + 1 or self._quarantine:\n",
        "        if self._quarantine:\n",
        ("pytest", f"{FAILURES}::test_a_batch_that_is_ready_is_dropped_where_the_one_before_fails"),
    ),
    Fault(
        "last-words-are-lost",
        "what a plugin said before it stopped is not taken",
        SUPERVISOR,
        "                await self._take_rest(transport)\n",
        "",
        ("pytest", f"{LIVES}::test_request_for_shutdown_ends_the_plugin_that_asks_and_no_other", f"{LIVES}::test_a_good_life"),
    ),
    Fault(
        "refused-plugin-runs",
        "what the policy refused is loaded all the same",
        ADMISSION,
        "        if not decision.allowed:\n",
        "        if not decision.allowed and decision.placement is not None:\n",
        ("pytest", f"{FAILURES}::test_policy_refuses_before_any_code_runs"),
    ),
    Fault(
        "binary-not-compared-with-its-manifest",
        "a library that says another name is initialised",
        SUPERVISOR,
        "            compare_with_binary(self.manifest, said)\n",
        "            del said\n",
        ("pytest", f"{FAILURES}::test_a_binary_that_disagrees_with_its_manifest_is_not_initialised"),
    ),
    Fault(
        "broken-plugin-starts-for-ever",
        "failures are counted and never end in quarantine",
        SUPERVISOR,
        "        if len(recent) >= limits.failures:\n",
        "        if len(recent) > limits.failures:\n",
        ("pytest", f"{FAILURES}::test_failures_are_restarted_later_each_time_then_quarantined"),
    ),
    Fault(
        "rejected-blocks-are-not-counted",
        "a plugin may send rubbish without end",
        SUPERVISOR,
        "        self._rejections += taken.rejections\n",
        "",
        ("pytest", f"{FAILURES}::test_too_many_rejected_blocks_quarantine_the_plugin"),
    ),
    Fault(
        "overdue-call-waited-for",
        "the deadline of a call into a plugin does not end the wait",
        "src/supervm_rt/transports/native/calls.py",
        "with trio.move_on_after(max(seconds - spent, 0.0)):",
        "with trio.move_on_after(max(seconds - spent, 0.0) * 1000):",
        ("pytest", f"{FAILURES}::test_start_that_waits_for_stop_is_stopped_while_it_runs"),
    ),
    Fault(
        "shutdown-told-again-and-again",
        "one request for shutdown gives many events",
        "src/supervm_rt/transports/native/life.py",
        "        self._shutdown_told = True\n",
        "",
        ("pytest", f"{FAILURES}::test_a_plugin_that_gives_up_has_failed"),
    ),
    Fault(
        "thread-not-joined-before-unmapping",
        "a library goes before what it keeps for each thread",
        IN_PROCESS,
        "                    for call in calls:\n                        call.join()\n",
        "                    del calls\n",
        ("pytest", f"{LIVES}::test_what_a_plugin_keeps_for_each_thread_goes_before_its_library"),
    ),
    Fault(
        "refused-block-holds-the-position",
        "the position does not move past a block that the translator refused",
        "src/supervm_rt/runtime/intake.py",
        "return RefusedInput(Rejection(refusal.hash, refusal.reason, refusal.detail), position=position)",
        "return RefusedInput(Rejection(refusal.hash, refusal.reason, refusal.detail))",
        ("pytest", "tests/misbehaving/test_corpus.py", "-k", "one_bad_block"),
    ),
    Fault(
        "last-batch-kept-in-memory",
        "the frames of the last batch, and a plugin's own payloads, are held until the next one comes",
        SUPERVISOR,
        "                del received, batch  # Frames",
        "                # Frames",
        ("pytest", "tests/misbehaving/test_corpus.py", "-k", "release_calls_host"),
    ),
    Fault(
        "silence-not-noticed",
        "a hung plugin counts as alive",
        SUPERVISOR,
        "if silence is not None and silence > longest:",
        "if silence is not None and silence > 1000 * longest:",
        ("pytest", f"{FAILURES}::test_a_silent_plugin_is_detected_stopped_and_restarted"),
    ),
)
