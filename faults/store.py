"""Faults of the store: what is durable, when, and whether damage is noticed."""

from __future__ import annotations

from faults.fault import Fault

MIRROR = "src/supervm_rt/store/mirror.py"
BATCH = "src/supervm_rt/store/batch.py"
DATABASE = "src/supervm_rt/store/database.py"
DIGEST = "src/supervm_rt/store/digest.py"

MIRROR_TESTS = ("pytest", "tests/store/test_mirror.py")
DIGEST_TESTS = ("pytest", "tests/store/test_digest.py", "-k", "another_digest or mode_counts or do_not_count")

FAULTS = (
    Fault(
        "position-committed-before-the-frame",
        "the position is durable in a transaction of its own, ahead of the blocks that it stands for",
        MIRROR,
        "        self._finish(batch)\n"
        "        position = next((input_.position for input_ in reversed(inputs) if input_.position), None)\n",
        "        position = next((input_.position for input_ in reversed(inputs) if input_.position), None)\n"
        "        if position is not None:\n"
        '            connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (plugin, self._chain, position))\n'
        '            connection.execute("COMMIT")\n'
        '            connection.execute("BEGIN IMMEDIATE")\n'
        "        self._finish(batch)\n",
        ("pytest", "tests/store/test_full.py"),
    ),
    Fault(
        "acknowledged-before-it-is-durable",
        "a commit does not wait for the disk",
        DATABASE,
        "{'FULL' if durable else 'OFF'}",
        "{'OFF' if durable else 'FULL'}",
        ("pytest", "tests/store/test_mirror.py::test_what_is_acknowledged_has_reached_the_disk"),
    ),
    Fault(
        "failed-batch-is-committed",
        "half a batch stays in the store",
        DATABASE,
        'if connection.in_transaction:\n                        connection.execute("ROLLBACK")',
        'if connection.in_transaction:\n                        connection.execute("COMMIT")',
        ("pytest", "tests/store/test_mirror.py::test_a_transaction_that_fails_after_it_wrote_leaves_nothing"),
    ),
    Fault(
        "broken-mirror-goes-on",
        "after a batch that was not stored the next one is taken",
        MIRROR,
        '            self.disable(f"a batch was not stored ({error})")\n',
        "            del error\n",
        MIRROR_TESTS,
    ),
    Fault(
        "first-position-of-a-batch-is-kept",
        "a restart reads almost the whole last batch again",
        MIRROR,
        "for input_ in reversed(inputs) if input_.position",
        "for input_ in inputs if input_.position",
        MIRROR_TESTS,
    ),
    Fault(
        "undone-block-is-stored-as-canonical",
        "queries still find it on the chain",
        MIRROR,
        "Step.UNDO: StateCode.SIDE}",
        "Step.UNDO: StateCode.CANONICAL}",
        MIRROR_TESTS,
    ),
    Fault(
        "transactions-of-undone-blocks-count",
        "the counters of a chain grow with every reorg",
        MIRROR,
        "sign = 1 if event.step is Step.NEW else -1",
        "sign = 1",
        MIRROR_TESTS,
    ),
    Fault(
        "archive-does-not-see-its-own-batch",
        "a block that arrived in the same batch is unknown",
        MIRROR,
        "        new = batch.new.get(hash_)\n        if new is not None:\n            if new.state",
        "        new = batch.new.get(hash_ + hash_)\n        if new is not None:\n            if new.state",
        MIRROR_TESTS,
    ),
    Fault(
        "connected-orphan-is-loaded-again",
        "an orphan that found its place still waits after a restart",
        BATCH,
        '        connection.executemany("DELETE FROM waiting WHERE block = ?", ((block,) for block in self.connected))\n',
        "",
        MIRROR_TESTS,
    ),
    Fault(
        "transactions-of-orphans-are-not-indexed",
        "a transaction of a block that once waited is never found",
        BATCH,
        "for block in sorted(self.connected):",
        "for block in sorted(self.connected)[:0]:",
        ("pytest", "tests/store/test_queries.py", "-k", "transactions_of_orphans or found_by_its_id"),
    ),
    Fault(
        "changed-bytes-are-served",
        "the checksum of a block's bytes is not compared",
        "src/supervm_rt/store/queries.py",
        "zlib.crc32(body) != checksum",
        "zlib.crc32(body) == -checksum",
        ("pytest", "tests/store/test_opening.py", "-k", "one_flipped_bit"),
    ),
    Fault(
        "digest-leaves-the-ir-out",
        "two stores of other IR have one digest",
        DIGEST,
        "put(check_body(store, hash_, raw_checksum, raw), check_body(store, hash_, ir_checksum, ir))",
        "put(check_body(store, hash_, raw_checksum, raw))",
        DIGEST_TESTS,
    ),
    Fault(
        "digest-leaves-the-events-out",
        "two stores of another history have one digest",
        DIGEST,
        "                put(STEPS[StepCode(step)].encode(), hash_, _number(height))\n",
        "                put(STEPS[StepCode(step)].encode())\n",
        DIGEST_TESTS,
    ),
    Fault(
        "second-writer-is-let-in",
        "two processes write one store",
        "src/supervm_rt/store/lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        ("pytest", "tests/store/test_opening.py", "-k", "second_writer"),
    ),
)
