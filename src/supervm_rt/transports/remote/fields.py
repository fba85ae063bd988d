"""Whether bytes are a message of a type: betterproto2 takes what was cut off for its end, and looks at no field's kind."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import betterproto2
from betterproto2 import (
    PACKED_TYPES,
    TYPE_MESSAGE,
    WIRE_FIXED_32,
    WIRE_FIXED_32_TYPES,
    WIRE_FIXED_64,
    WIRE_FIXED_64_TYPES,
    WIRE_LEN_DELIM,
    WIRE_VARINT,
    WIRE_VARINT_TYPES,
)

DEEPEST = 32
MOST_FIELDS = 4_096
"""Fields of one message and the messages in it, and items of a packed field. Each is read by Python while the whole node waits,
and betterproto2 copies all unknown fields for each further one."""
_LONGEST_NUMBER = 10
_FIXED = {WIRE_FIXED_64: 8, WIRE_FIXED_32: 4}

Shape = dict[int, tuple[frozenset[int], type[betterproto2.Message] | None]]


def metadata(message: type[betterproto2.Message]) -> Any:
    """What betterproto2 knows of a type, whose own types mypy does not see through."""
    return cast("Any", message)._betterproto


@cache
def shape(message: type[betterproto2.Message]) -> Shape:
    """By number: the kinds that a field can have on the wire, and what message is in it."""
    known = metadata(message)
    found: Shape = {}
    for name, meta in known.meta_by_field_name.items():
        kinds = {
            kind
            for kind, types in (
                (WIRE_VARINT, WIRE_VARINT_TYPES),
                (WIRE_FIXED_64, WIRE_FIXED_64_TYPES),
                (WIRE_FIXED_32, WIRE_FIXED_32_TYPES),
            )
            if meta.proto_type in types
        }
        if not kinds or (meta.repeated and meta.proto_type in PACKED_TYPES):
            kinds.add(WIRE_LEN_DELIM)
        inner = meta.unwrap() if meta.unwrap is not None else known.cls_by_field[name]
        nested = meta.proto_type == TYPE_MESSAGE and isinstance(inner, type) and issubclass(inner, betterproto2.Message)
        found[meta.number] = (frozenset(kinds), inner if nested else None)
    return found


def check(data: bytes | memoryview, message: type[betterproto2.Message], depth: int = 0) -> int:
    """Walks over the fields, and those of the messages in them; says how many. Raises ValueError for what is no such message."""
    if depth > DEEPEST:
        raise ValueError("messages are nested too deeply")
    view, known = memoryview(data), shape(message)
    place, end = 0, len(view)
    count = 0

    def number() -> int:
        nonlocal place
        value = 0
        for index in range(_LONGEST_NUMBER):
            if place >= end:
                raise ValueError("it ends inside a number")
            byte = view[place]
            place += 1
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return value
        raise ValueError("a number is too long")

    while place < end:
        key = number()
        kind, field = key & 7, key >> 3
        if not 1 <= field < 1 << 29:
            raise ValueError("a field has no number")
        kinds, inner = known.get(field, (None, None))
        if kinds is not None and kind not in kinds:
            raise ValueError(f"field {field} is of another type")
        begin = place
        if kind == WIRE_VARINT:
            number()
        elif kind == WIRE_LEN_DELIM:
            length = number()  # which moves the place
            begin = place
            place += length
            if kinds is not None and len(kinds) > 1:
                count += length  # a packed field has at most so many items
        elif kind in _FIXED:
            place += _FIXED[kind]
        else:
            raise ValueError("a field has no known type")
        if place > end:
            raise ValueError("it ends inside a field")
        count += 1
        if inner is not None:
            count += check(view[begin:place], inner, depth + 1)
        if count > MOST_FIELDS:
            raise ValueError(f"it has more than {MOST_FIELDS} fields")
    return count
