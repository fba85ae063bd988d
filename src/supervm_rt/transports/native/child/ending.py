"""Why a child ended, told from its status (clause L2)."""

from __future__ import annotations

import signal

from supervm_rt.errors import ChildEnded

_SHELL_SIGNALS = 128
"""bubblewrap reports a signal as a shell does: 128 and its number."""

_CAUSES = {
    signal.SIGSYS: ("forbidden-call", "it made a system call that its seccomp profile forbids"),
    signal.SIGXCPU: ("quota", "it used up its processor time"),
    signal.SIGXFSZ: ("quota", "it wrote a file beyond its storage"),
    signal.SIGKILL: ("killed", "it was killed, by somebody or for want of memory"),
}
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}


def describe(plugin: str, status: int, last_line: str) -> ChildEnded:
    """The error for a process that ended with this status (negative: by a signal), unasked."""
    number = -status if status < 0 else status - _SHELL_SIGNALS
    try:
        ended_by: signal.Signals | None = signal.Signals(number)
    except ValueError:
        ended_by = None
    said = f"; its last words: {last_line}" if last_line else ""
    if ended_by is None:
        return ChildEnded(
            f"{plugin}: its process ended by itself with status {status}{said}",
            cause="exit",
            remedy="a plugin must not end its process; ask its author",
        )
    cause, what = _CAUSES.get(ended_by, ("crash", "it crashed") if ended_by in _CRASHES else ("killed", "a signal ended it"))
    return ChildEnded(
        f"{plugin}: {what} ({ended_by.name}){said}", cause=cause, remedy="see the plugin's log lines above; ask its author"
    )
