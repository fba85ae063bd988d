"""Why a child ended, or was never loaded: told from its status, and from what its runner said (clause L2)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

from supervm_rt.errors import ChildEnded, HostError, LoadError
from supervm_rt.transports.native.child.control import Fault

_SHELL_SIGNALS = 128
"""bubblewrap reports a signal as a shell does: 128 and its number."""

_CAUSES = {
    signal.SIGSYS: ("forbidden-call", "it made a system call that its seccomp profile forbids"),
    signal.SIGXCPU: ("quota", "it used up its processor time"),
    signal.SIGXFSZ: ("quota", "it wrote a file beyond its storage"),
    signal.SIGKILL: ("killed", "it was killed, by somebody or for want of memory"),
}
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
END_SECONDS = 5.0
"""How long the kernel may take to end a killed process."""
TOLD_SECONDS = 1.0
"""How long it may take until bubblewrap has told the end of its program, which the kernel shows no more."""


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends what leads a session of its own, at once.

    With bubblewrap its whole tree goes, but not while that is being made: its second process would wait without end to be told
    who it is, or go on. All of it is of one process group, which nothing leaves before the program runs.
    """
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


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


def why_not_loaded(plugin: str, fault: int, said: bytes, *, confined: bool) -> HostError | LoadError:
    """The error for what the runner said when loading went no further. ``confined``: before that it said that it is."""
    text = "".join(each if each.isprintable() else " " for each in said.decode("utf-8", "replace"))[:512]
    match fault:
        case Fault.CONFINEMENT if not confined:
            return HostError(
                f"{plugin}: the sandbox cannot be put up ({text})", remedy="look at what this kernel offers and allows"
            )
        case Fault.CONFINEMENT:
            return LoadError(
                f"{plugin}: while it was loaded it kept the sandbox from being closed ({text})",
                remedy="its constructors did what no plugin does; ask its author",
            )
        case Fault.MISSING_EXPORT:
            return LoadError(
                f"{plugin}: the library does not export {text}",
                remedy="a plugin exports the five functions of supervm/plugin.h with C linkage and default visibility",
            )
        case Fault.MANIFEST_NULL:
            return LoadError(f"{plugin}: plugin_get_manifest_json returned NULL", remedy="return the manifest as a JSON text")
        case Fault.MANIFEST_LENGTH:
            return LoadError(
                f"{plugin}: plugin_get_manifest_json returned more than 1 MiB",
                remedy="return the manifest only, with a NUL after it",
            )
    return LoadError(
        f"{plugin}: the dynamic linker refuses the library: {text}",
        remedy="look at what it needs with ldd; in a sandbox only the system's library folders are visible",
    )
