"""Every error that leaves this library, split by who can mend it.

The class says who is to blame; ``message`` says what was wrong; ``remedy`` says what to do next. ``str(error)`` joins them
into one line that can be shown to a user as it is. None of these is raised for a programming error inside supervm-rt itself:
those stay ordinary exceptions.
"""

from __future__ import annotations

from typing import ClassVar


class SuperVMError(Exception):
    """Base of all. ``blame`` is one of ``operator``, ``plugin``, ``peer``, ``host``."""

    blame: ClassVar[str] = "host"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}" if self.remedy else self.message


class OperatorError(SuperVMError):
    """What the operator wrote, set or asked for cannot be used."""

    blame = "operator"


class ConfigurationError(OperatorError):
    """A configuration file, option or plugin setting is wrong."""


class ManifestError(OperatorError):
    """A plugin.yaml cannot be read or says something that is not allowed (clause M1)."""


class PolicyRefused(OperatorError):
    """The policy does not allow this plugin, or something that it asks for (clauses P1 to P3)."""


class StoreError(OperatorError):
    """A store cannot be opened or written. Nothing in it was changed."""


class StoreLocked(StoreError):
    """Another runtime has this store open for writing."""


class StoreTooNew(StoreError):
    """The store was written by a newer version of supervm-rt."""


class StoreCorrupt(StoreError):
    """The file is not a store, or is damaged."""


class StoreFull(StoreError):
    """The disk, or the store's own bound, has no room for the next transaction; that transaction was not made."""


class NotInStore(OperatorError):
    """The store has no such chain, block or transaction."""


class CursorError(OperatorError):
    """A cursor cannot be used here; the class says why. Nothing was read after it."""


class CursorMalformed(CursorError):
    """The text is no cursor: cut short, with something added, or of other characters."""


class CursorTooNew(CursorError):
    """A newer version of supervm-rt gave the cursor, in a form that this one does not know."""


class CursorOfAnotherStore(CursorError):
    """Another store gave the cursor."""


class CursorForged(CursorError):
    """The cursor is not as this store gave it."""


class CursorOfAnotherChain(CursorError):
    """The cursor is of other chains than those that are asked for."""


class CursorUnknown(CursorError):
    """The cursor names an event that this store does not have: an older copy of it was put in its place."""


class CursorTooOld(CursorError):
    """Events behind the cursor were deleted by the store's retention. ``oldest`` is the oldest cursor that works."""

    def __init__(self, message: str, *, remedy: str = "", oldest: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.oldest = oldest


class SinkError(OperatorError):
    """Where events are to go cannot be reached or refuses them. It is as it was before them."""


class PluginError(SuperVMError):
    """A plugin did what it must not, or did not do what it must."""

    blame = "plugin"


class LoadError(PluginError):
    """A library cannot be loaded as a plugin: not a library, a missing export, or one that must not be loaded in process."""


class ManifestMismatch(PluginError):
    """What the library says of itself differs from the manifest beside it (clause A1)."""


class LifecycleError(PluginError):
    """A lifecycle call failed, passed its deadline, or was made in a state that does not allow it."""


class RingCorrupt(PluginError):
    """The plugin wrote into its ring what no plugin writes. What it said before is whole; nothing after it can be believed."""


class MessageRefused(PluginError):
    """A remote plugin sent what proto/plugin_host.proto does not allow. Nothing of it counts; what was said before does."""


class PluginHung(LifecycleError):
    """A plugin that owes signs of life gave none for too long, or was ended because a call into it did not return in time."""


class ChildEnded(PluginError):
    """The process of a plugin ended, or had to be ended, while it was meant to live.

    ``cause`` is one of ``crash``, ``exit``, ``killed``, ``forbidden-call``, ``quota``, ``control``. It rests on what the process
    left behind, and a process can choose its exit status: only what the kernel itself counts is proof.
    """

    def __init__(self, message: str, *, cause: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.cause = cause


class RemoteEnded(PluginError):
    """The connection of a remote plugin ended, or had to be ended, while it was meant to live.

    ``cause`` is one of ``disconnect``, ``protocol``, ``superseded``, ``stop``.
    """

    def __init__(self, message: str, *, cause: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.cause = cause


class PluginQuarantined(PluginError):
    """The plugin was stopped for what it sent, and is not started again by itself."""


class HostError(SuperVMError):
    """This machine or process lacks something that the runtime needs."""


class SlotsExhausted(HostError):
    """As many native plugins are loaded, or were abandoned, as one process can hold."""
