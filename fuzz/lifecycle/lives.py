"""The plain model: which states and calls a life can have, and how a life goes that nobody interrupts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from fuzz.lifecycle.puppet import Does, Part, Works
from supervm_rt.trust.policy import Placement

_ENDED = "(?:unloaded|abandoned)"
_UNSTARTED = "(?:loading (?:loaded (?:initialising (?:initialised )?)?)?)?" + _ENDED
_STARTED = "loading loaded initialising initialised starting (?:running )?stopping (?:abandoned|stopped " + _ENDED + ")"
_LIFE = f"(?:refused|{_UNSTARTED}|{_STARTED})"
STATES = re.compile(f"(?:{_LIFE}(?: (?:registered )?{_LIFE})*(?: quarantined)?)?")
"""All lives of one plugin, from the first registration on; a life that follows another is registered anew."""

_BEFORE_INIT = "Cc(?:Mm(?:Ff)?)?"
CALLS_WITH_INIT = re.compile(f"{_BEFORE_INIT}Dd|CcMmFfIi(?:Ss)?TtDd")
"""One life that was unloaded: whatever was initialised is stopped, once, and nothing is called behind that."""
CALLS_BESIDE_START = re.compile(f"{_BEFORE_INIT}Dd|CcMmFfIi(?:SsTt|STst|STts|Tt)Dd")
"""The same where plugin_start waits for plugin_stop, which is called when start is overdue."""
CALLS_WITHOUT_INIT = re.compile(f"{_BEFORE_INIT}(?:Ii)?Dd")
"""The same where plugin_init fails."""
CALLS_IN_CHILD = "(?:C|Cc|CcM|CcMm|CcMmF|CcMmFf|%s)?"
"""The calls of one life in a process of its own, which ends without destructors, and while it is loaded wherever it is."""
CALLS_ABANDONED = re.compile("C?M?F?I?S?T?D?")
"""The calls of one life that was given up, without what returned: each at most once, in this order."""


@dataclass(frozen=True)
class Life:
    """One that nobody interrupts, from its registration to its end."""

    states: re.Pattern[str]
    calls: re.Pattern[str] | None
    """None: given up."""
    failure: str | None
    """What the reported failure says."""


def check_lives(states: list[str], lives: list[str], part: Part, placement: Placement = Placement.IN_PROCESS) -> str | None:
    """What no plugin may ever show, however it was interrupted; None where all is well."""
    if not STATES.fullmatch(" ".join(states)):
        return f"states {states}"
    given_up = "abandoned" in states or (placement is Placement.CHILD and part.hangs)
    for life in lives:
        pattern = CALLS_BESIDE_START if part.start is Does.WAITS else CALLS_WITH_INIT
        pattern = CALLS_WITHOUT_INIT if part.init is Does.FAILS else pattern
        if placement is Placement.CHILD:
            pattern = re.compile(CALLS_IN_CHILD % pattern.pattern.replace("Dd", ""))
        if pattern.fullmatch(life):
            continue
        entered = "".join(letter for letter in life if letter.isupper())
        if not given_up or not CALLS_ABANDONED.fullmatch(entered):
            return f"calls {life}"
    return None


def uninterrupted(part: Part, placement: Placement = Placement.IN_PROCESS) -> Life:
    """How its life goes."""
    return _in_process(part) if placement is Placement.IN_PROCESS else _in_child(part)


def _in_child(part: Part) -> Life:
    """As in process, but that a process that does not come to its end is ended, and that destructors do not run."""
    if Does.HANGS in {part.constructor, part.manifest}:
        return _life("loading unloaded", None, "did not return within")
    if part.init is Does.HANGS:
        return _life("loading loaded initialising unloaded", None, "did not return within")
    tame = {Works.STAYS: Works.NOT, Works.KEEPS_A_RESERVATION: Works.NOT}
    life = _in_process(replace(part, destructor=Does.WELL, works=tame.get(part.works, part.works)))
    states = life.states.pattern.replace("stopping abandoned", "stopping stopped unloaded").replace("abandoned", "unloaded")
    return _life(states, None if life.calls is None else life.calls.pattern.replace("Dd", ""), life.failure)


def _in_process(part: Part) -> Life:
    begun = "loading loaded initialising initialised starting "
    good = begun + "running stopping stopped unloaded"
    if part.broken:
        return _life("refused|loading unloaded", "", "")
    hangs = {Does.HANGS, Does.WAITS}
    overdue = "did not return within"
    if part.constructor in hangs or part.manifest in hangs:
        return _life("loading abandoned", None, overdue)
    if part.manifest is Does.FAILS:
        return _unloaded(part, "loading", "CcMm", "returned NULL")
    if part.manifest is Does.DISAGREES:
        return _unloaded(part, "loading loaded", "CcMmFf", "disagree")
    if part.init in hangs:
        return _life("loading loaded initialising abandoned", None, overdue)
    if part.init is Does.FAILS:
        return _unloaded(part, "loading loaded initialising", "CcMmFfIi", "plugin_init answered 7")
    if part.start is Does.WAITS:
        return _life(begun + "stopping (stopped )?(unloaded|abandoned)", None, overdue)
    failure = "plugin_stop answered 9" if part.stop is Does.FAILS else None
    if part.start is Does.HANGS or part.stop in hangs:
        failure = overdue if part.start is not Does.FAILS else "plugin_start answered 8"
        failure = "gave up" if part.start is not Does.HANGS and part.works is Works.GIVES_UP and failure == overdue else failure
        return _life(begun + "(running )?stopping abandoned", None, failure)
    calls = "CcMmFfIiSsTt"
    if part.start is Does.FAILS:
        return _unloaded(part, begun + "stopping stopped", calls, "plugin_start answered 8")
    if part.works is Works.STAYS:
        return _life(good.replace("unloaded", "abandoned"), None, failure or "threads behind")
    if part.works is Works.KEEPS_A_RESERVATION:
        return _life(good.replace("unloaded", "(unloaded|abandoned)"), None, failure or "")
    if part.works is Works.GIVES_UP:
        return _unloaded(part, begun + "(running )?stopping stopped", calls, "gave up (reason 42)")
    if part.works is Works.ASKS_FOR_SHUTDOWN:
        return _unloaded(part, begun + "(running )?stopping stopped", calls, failure)
    return _unloaded(part, begun + "running stopping stopped", calls, failure)


def _unloaded(part: Part, states: str, calls: str, failure: str | None) -> Life:
    """A life that comes to its end, but for a destructor that may hang."""
    if part.destructor is Does.HANGS:
        return _life(f"{states} abandoned", None, failure or "did not return within")
    return _life(f"{states} unloaded", f"{calls}Dd", failure)


def _life(states: str, calls: str | None, failure: str | None) -> Life:
    return Life(re.compile(states), None if calls is None else re.compile(calls), failure)
