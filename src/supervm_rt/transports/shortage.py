"""What this process or machine has too little of, said so that an operator knows what to raise."""

from __future__ import annotations

import errno
import os
import resource

from supervm_rt.errors import HostError

NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors that say nothing of what was to be opened."""


def host_error(plugin: str, what: str, error: OSError) -> HostError:
    """The error for what could not be done for want of something. ``what``: a clause, for a person."""
    if error.errno == errno.EMFILE:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return HostError(
            f"{plugin}: {what}: this node has as many files and sockets open as it may, {most}",
            remedy="raise its limit of descriptors (ulimit -n, LimitNOFILE= of its service), or let it host fewer plugins",
        )
    if error.errno == errno.ENFILE:
        return HostError(f"{plugin}: {what}: this machine has as many files open as it may", remedy="raise fs.file-max (sysctl)")
    why = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    return HostError(f"{plugin}: {what} ({why})", remedy="raise the limits of this process")
