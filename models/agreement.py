"""Whether a model still says what the C code does.

A model names the function that it follows, ``/*@ ring.c ring_free */``, and quotes its statements, ``/*= statement */``. What is
quoted has to be in that function, in this order; and each statement there that touches what threads share has to be quoted.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent
NATIVE = ROOT.parent / "src/supervm_rt/_native"

_MARK = re.compile(r"/\*([@=]) (.*?) \*/")
_SHARED = re.compile(
    r"\b(?:atomic|futex|doorbell|owner_lock)_|\bring_(?:stopped|look|free|stop)\(|\b(?:balance|publish_freed|make_room|copy_out|has_room|read|write)\("
)


def function_body(source: str, name: str) -> list[str]:
    """The lines of a function's body without comments and indentation; empty where there is none of that name."""
    found = re.search(rf"^[^\n]*\b{re.escape(name)}\([^;{{]*\)\n{{\n(.*?)^}}$", source, re.MULTILINE | re.DOTALL)
    if found is None:
        return []
    lines = re.sub(r"/\*.*?\*/", "", found[1], flags=re.DOTALL).splitlines()
    return [line.strip() for line in lines if line.strip()]


def quotations(model: str) -> dict[tuple[str, str], list[str]]:
    """What a model quotes, by file and function."""
    quoted: dict[tuple[str, str], list[str]] = {}
    statements: list[str] = []
    for kind, text in _MARK.findall(model):
        if kind == "@":
            file, _, function = text.partition(" ")
            statements = quoted.setdefault((file, function), [])
        else:
            statements.append(text)
    return quoted


def disagreements(model: Path, native: Path = NATIVE) -> list[str]:
    """One line for each statement that only one of the two has."""
    found = []
    for (file, function), statements in quotations(model.read_text()).items():
        body = function_body((native / file).read_text(), function)
        where = f"{model.name}: {function} in {file}"
        at = 0
        unquoted = []
        for statement in statements:
            if statement not in body[at:]:
                found.append(f"{where} does not say: {statement}")
                continue
            here = body.index(statement, at)
            unquoted += body[at:here]
            at = here + 1
        unquoted += body[at:]
        found += [f"{where} also says: {line}" for line in unquoted if _SHARED.search(line)]
    return found
