"""Faults of the sandbox: of what is around a child, and of what its host believes."""

from __future__ import annotations

from faults.fault import Fault

PROGRAMS = "tests/remote/test_confined_programs.py"
CHILD = "src/supervm_rt/transports/native/child"
TRANSPORT = f"{CHILD}/transport.py"
AGAINST = "tests/sandbox/test_against_the_host.py"
ATTACKS = "tests/sandbox/test_attacks.py"
QUOTAS = "tests/sandbox/test_quotas.py"

FAULTS = (
    Fault(
        "the-child-is-believed",
        "the host does not ask the kernel what is around a child",
        TRANSPORT,
        "        missing = what_is_missing(self._runner, namespaces=not self._process.degraded)\n",
        '        missing = ""\n',
        ("pytest", f"{AGAINST}::test_what_a_constructor_says_in_the_runners_place_is_not_believed"),
    ),
    Fault(
        "constructors-choose-the-program",
        "a constructor may put up a seccomp program of its own in the place of the second one",
        "runner/confine.c",
        "        CALL(SYS_seccomp, 5),\n",
        "        CALL(SYS_getpid, 5),\n",
        ("pytest", AGAINST, "-k", "constructor_is_confined and install_program"),
    ),
    Fault(
        "the-second-program-can-be-mapped-over",
        "a mapping may take the place of the program that is kept",
        "runner/confine.c",
        "        CALL(SYS_mmap, 7),\n",
        "        CALL(SYS_getpid, 7),\n",
        ("pytest", AGAINST, "-k", "constructor_is_confined and map_over_program"),
    ),
    Fault(
        "a-status-looks-like-a-signal",
        "a plugin may end with a status that bubblewrap gives for a signal",
        "runner/confine.c",
        "        CALL(SYS_exit_group, 3),\n",
        "        CALL(SYS_getpid, 3),\n",
        ("pytest", AGAINST, "-k", "constructor_is_confined and exit_159"),
    ),
    Fault(
        "threads-of-constructors-stay-outside",
        "the programs are for the thread that puts them up",
        "runner/confine.c",
        "    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, program) != 0)\n",
        "    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, program) != 0)\n",
        ("pytest", f"{AGAINST}::test_a_thread_that_a_constructor_left_is_under_the_second_program_too"),
    ),
    Fault(
        "pages-of-the-ring-can-be-removed",
        "every advice about memory is allowed",
        f"{CHILD}/profiles/strict.profile",
        "madvise a2 == MADV_NORMAL\n",
        "madvise\n",
        ("pytest", f"{AGAINST}::test_pages_of_the_ring_cannot_be_removed"),
    ),
    Fault(
        "shared-flags-can-be-changed",
        "a child may clear O_NONBLOCK of what it shares with its host",
        f"{CHILD}/profiles/strict.profile",
        "fcntl a1 == F_SETFD\n",
        "fcntl\n",
        ("pytest", ATTACKS, "-k", "fails_inside and clear_nonblock"),
    ),
    Fault(
        "a-broken-channel-is-named-a-crash",
        "what a child answers unasked is not told from a crash",
        TRANSPORT,
        '                    self._doom(f"it broke its control channel: {fault}")\n',
        '                    self._doom(f"it broke its control channel: {fault}", cause="crash")\n',
        ("pytest", AGAINST, "-k", "recognised_and_named and forge_answer"),
    ),
    Fault(
        "storage-is-not-measured",
        "a folder may grow beyond what was granted",
        f"{CHILD}/storage.py",
        "    if size > most:\n",
        "    if size < 0:\n",
        ("pytest", QUOTAS, "-k", "ends_where_it_is_full"),
    ),
    Fault(
        "written-code-can-be-run",
        "an image is mounted without noexec",
        "runner/launch.c",
        "    int tree = (int)syscall(SYS_fsmount, context, 1 /* close on exec */, (unsigned)CONFINED);\n",
        "    int tree = (int)syscall(SYS_fsmount, context, 1 /* close on exec */, 6u);\n",
        ("pytest", QUOTAS, "-k", "code_that_was_written"),
    ),
    Fault(
        "processor-time-is-not-paced",
        "where there is no control group a plugin takes what it wants",
        f"{CHILD}/quotas.py",
        "        if self.paused != (self._cpu_left < 0):\n",
        "        if self.paused:\n",
        ("pytest", QUOTAS, "-k", "processor_time"),
    ),
    Fault(
        "groups-of-killed-hosts-stay",
        "what a killed host left in the control groups is not cleared",
        f"{CHILD}/cgroups.py",
        "            _clear(base)\n",
        "            del base\n",
        ("pytest", f"{QUOTAS}::test_groups_of_a_host_that_is_gone_are_cleared"),
    ),
    Fault(
        "strict-takes-less",
        "a quota that is only looked at counts as enforced",
        "src/supervm_rt/transports/interface.py",
        '        return [name for name, means in self.quotas.items() if means in {"polling", "nothing"}]\n',
        '        return [name for name, means in self.quotas.items() if means == "nothing"]\n',
        ("pytest", "tests/sandbox/test_transport.py::test_storage_that_is_only_looked_at_will_not_do_either"),
    ),
    Fault(
        "programs-have-no-limits",
        "a program that the node starts is not limited before it runs",
        "runner/enter.c",
        "    check(confine_process(&setup));\n",
        "",
        ("pytest", PROGRAMS, "-k", "lives_within_limits"),
    ),
    Fault(
        "programs-have-no-landlock",
        "nothing but namespaces says what a program may do with a path",
        "runner/enter.c",
        "    check(confine_files(&setup, paths));\n",
        "",
        ("pytest", PROGRAMS, "-k", "lives_within_limits"),
    ),
    Fault(
        "programs-connect-to-what-they-read",
        "a socket that a program may see it may connect to",
        f"{CHILD}/seccomp.py",
        "            _add(context, _NOTIFY, Rule(_JUDGED))\n",
        "            _add(context, _ALLOW, Rule(_JUDGED))\n",
        ("pytest", PROGRAMS, "-k", "connects_to_no_socket"),
    ),
    Fault(
        "memory-of-programs-is-not-measured",
        "without a control group a program takes what it wants, up to what it may reserve",
        f"{CHILD}/quotas.py",
        "            if used > most:\n",
        "            if used < 0:\n",
        ("pytest", PROGRAMS, "-k", "memory_beyond"),
    ),
    Fault(
        "strict-takes-less-of-programs",
        "the demands of the policy do not reach programs with runMode grpc",
        "src/supervm_rt/transports/remote/launching.py",
        "            refuse_less(self._plugin, here, self.confinement)\n",
        "            pass\n",
        ("pytest", "tests/remote/test_launched.py", "-k", "strict_refuses"),
    ),
)
