"""Reorg sequences as JSON Lines: a set-up, then one input a line; for each input one line of answer.

Ids are any JSON strings. They become bytes as UTF-8, lone surrogates included, and back without loss.

A line that is no JSON object ends the replay (``VectorError``), as does a wrong set-up. An object that says something wrong is
an input like any other, answered ``rejected``, ``malformed``. Fields that the format does not name are refused in the set-up,
where a slip of the pen would change every answer, and passed over in inputs, so that other systems can annotate theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from supervm_rt.chain.tracker import MAX_HEIGHT
from supervm_rt.chain.types import Candidate, ForkRules, Outcome
from supervm_rt.errors import OperatorError
from supervm_rt.model.chain import BlockRef, ForkMode, Reason, Verdict

_LONGEST_INTEGER: Final = 100
"""Characters. No field can hold more, and turning digits into a number takes time that grows with their square."""


class VectorError(OperatorError):
    """A file of reorg sequences cannot be replayed: a wrong set-up, or a line that is no JSON object."""


@dataclass(frozen=True, slots=True)
class VectorSetup:
    """The first line."""

    rules: ForkRules
    root: BlockRef | None


@dataclass(frozen=True, slots=True)
class BlockInput:
    """A block arrives."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class FinalInput:
    """A block is said to be final."""

    hash: bytes
    height: int


@dataclass(frozen=True, slots=True)
class ReorgInput:
    """The canonical blocks above ``to_height`` are said to be canonical no longer."""

    from_height: int
    to_height: int
    orphans: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RestartInput:
    """The store is closed and opened again."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """An object that is no input."""

    name: str | None
    """What the answer calls it: the id, or the kind of statement; None where the object has neither."""
    detail: str

    @property
    def outcome(self) -> Outcome:
        """The answer to it."""
        return Outcome(Verdict.REJECTED, Reason.MALFORMED, self.detail)


VectorInput: TypeAlias = BlockInput | FinalInput | ReorgInput | RestartInput | Malformed


class _WrongField(Exception):
    """A field is missing or has a wrong type; the message says which."""


class _Fields(dict[str, Any]):
    """A JSON object that remembers whether it named a field twice."""

    repeated: str | None = None


def id_from_text(text: str) -> bytes:
    """The id that a JSON string stands for."""
    return text.encode("utf-8", "surrogatepass")


def text_from_id(id_: bytes) -> str:
    """The reverse of ``id_from_text``."""
    return id_.decode("utf-8", "surrogatepass")


def read_vectors(lines: Iterable[str]) -> tuple[VectorSetup, Iterator[VectorInput]]:
    """Reads the set-up at once and the inputs one by one, as they are asked for. Blank lines are passed over.

    Raises VectorError, also from the iterator.
    """
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    number, first = next(numbered, (1, ""))
    setup = parse_setup(first, number)
    return setup, (parse_input(line, number, setup) for number, line in numbered)


def parse_setup(line: str, number: int = 1) -> VectorSetup:
    """Reads the set-up. ``root`` and ``final_depth`` default to null, ``orphans`` to 0, ``holes`` to false.

    Raises VectorError.
    """
    fields = _read_object(line, number)
    try:
        _no_repetition(fields)
        unknown = sorted(fields.keys() - {"mode", "root", "final_depth", "orphans", "holes"})
        if unknown:
            raise _WrongField(f"there is no setting {unknown[0]!r}")
        mode = _text(fields, "mode")
        if mode not in set(ForkMode):
            raise _WrongField(f"mode is {mode!r}")
        holes = fields.get("holes", False)
        if not isinstance(holes, bool):
            raise _WrongField("holes is neither true nor false")
        final_depth = fields.get("final_depth")
        rules = ForkRules(
            mode=ForkMode(mode),
            final_depth=None if final_depth is None else _count(fields, "final_depth"),
            orphan_limit=_count(fields, "orphans") if "orphans" in fields else 0,
            holes=holes,
        )
        return VectorSetup(rules, None if fields.get("root") is None else _reference(fields, "root"))
    except _WrongField as error:
        raise VectorError(
            f"line {number}, the set-up: {error}",
            remedy='write it like {"mode": "follow" or "longest" or "heaviest", "root": {"hash": "a0", "height": 10} or null, '
            '"final_depth": a number or null, "orphans": a number, "holes": true or false}',
        ) from None


def parse_input(line: str, number: int, setup: VectorSetup) -> VectorInput:
    """Reads one input. Raises VectorError where the line is no JSON object."""
    fields = _read_object(line, number)
    hash_ = fields.get("hash")
    statements = [kind for kind in ("final", "reorg", "restart") if kind in fields]
    name = hash_ if isinstance(hash_, str) else statements[0] if statements else None
    try:
        _no_repetition(fields)
        if len(statements) + ("hash" in fields) != 1:
            raise _WrongField("one of hash, final, reorg and restart says what an input is, and one only")
        match statements:
            case ["final"]:
                said = _reference(fields, "final")
                return FinalInput(said.hash, said.height)
            case ["reorg"]:
                return _reorg(_object(fields, "reorg"))
            case ["restart"]:
                if fields["restart"] is not True:
                    raise _WrongField("restart is not true")
                return RestartInput()
            case _:
                return BlockInput(_candidate(fields, setup))
    except _WrongField as error:
        return Malformed(name, str(error))


def input_name(input_: VectorInput) -> str | None:
    """What the answer calls an input."""
    match input_:
        case BlockInput(candidate):
            return text_from_id(candidate.hash)
        case FinalInput():
            return "final"
        case ReorgInput():
            return "reorg"
        case RestartInput():
            return "restart"
        case Malformed(name):
            return name


def render_outcome(input_: VectorInput, outcome: Outcome, tip: BlockRef | None) -> dict[str, Any]:
    """The answer to one input, ready for ``json.dumps``. ``tip``: after the input; null while there is none."""
    answer: dict[str, Any] = {"input": input_name(input_), "verdict": str(outcome.verdict)}
    if outcome.reason is not None:
        answer["reason"] = str(outcome.reason)
    answer["events"] = [[str(event.step), text_from_id(event.block.hash)] for event in outcome.events]
    answer["tip"] = None if tip is None else {"hash": text_from_id(tip.hash), "height": tip.height}
    return answer


def _read_object(line: str, number: int) -> _Fields:
    try:
        value = json.loads(line, object_pairs_hook=_pairs, parse_int=_integer, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        detail = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise VectorError(f"line {number} is not JSON ({detail})", remedy="write one JSON object on each line") from None
    if not isinstance(value, _Fields):
        raise VectorError(f"line {number} is not a JSON object", remedy="write one JSON object on each line")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> _Fields:
    fields = _Fields()
    for name, value in pairs:
        if name in fields:
            fields.repeated = name
        fields[name] = value
    return fields


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float("inf")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _no_repetition(fields: _Fields) -> None:
    for value in (fields, *fields.values()):
        if isinstance(value, _Fields) and value.repeated is not None:
            raise _WrongField(f"{value.repeated} stands there twice")


def _field(fields: _Fields, name: str) -> Any:
    if name not in fields:
        raise _WrongField(f"{name} is missing")
    return fields[name]


def _text(fields: _Fields, name: str) -> str:
    value = _field(fields, name)
    if not isinstance(value, str):
        raise _WrongField(f"{name} is not a string")
    return value


def _whole(fields: _Fields, name: str) -> int:
    value = _field(fields, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _WrongField(f"{name} is not a whole number")
    return value


def _count(fields: _Fields, name: str) -> int:
    value = _whole(fields, name)
    if not 0 <= value <= MAX_HEIGHT:
        raise _WrongField(f"{name} is not between 0 and {MAX_HEIGHT}")
    return value


def _object(fields: _Fields, name: str) -> _Fields:
    value = _field(fields, name)
    if not isinstance(value, _Fields):
        raise _WrongField(f"{name} is not an object")
    return value


def _reference(fields: _Fields, name: str) -> BlockRef:
    value = _object(fields, name)
    return BlockRef(id_from_text(_text(value, "hash")), _count(value, "height"))


def _candidate(fields: _Fields, setup: VectorSetup) -> Candidate:
    # Only the heaviest chain is chosen by weight: "longest" ignores it, and "follow" does without where none is given.
    mode = setup.rules.mode
    weightless = mode is ForkMode.LONGEST or (mode is ForkMode.FOLLOW and "weight" not in fields)
    return Candidate(
        hash=id_from_text(_text(fields, "hash")),
        parent=id_from_text(_text(fields, "parent")),
        height=_whole(fields, "height"),
        weight=0 if weightless else _whole(fields, "weight"),
        final_height=None if fields.get("final_height") is None else _whole(fields, "final_height"),
    )


def _reorg(fields: _Fields) -> ReorgInput:
    orphans = _field(fields, "orphans")
    if not isinstance(orphans, list) or not all(isinstance(orphan, str) for orphan in orphans):
        raise _WrongField("orphans is not a list of strings")
    return ReorgInput(_whole(fields, "from_height"), _whole(fields, "to_height"), tuple(map(id_from_text, orphans)))
