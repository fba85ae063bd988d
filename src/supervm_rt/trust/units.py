"""Amounts as people write them: ``20GB``, ``512MiB``, ``500m``, ``30s``."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_MOST_BYTES = 2**63
"""What the kernel and SQLite count with."""
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _split(value: object, what: str, example: str) -> tuple[float, str]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not {what}; write for example {example}")
    if not isinstance(value, str):
        try:
            number, unit = float(value), ""
        except OverflowError:
            number, unit = math.inf, ""
    else:
        match = _NUMBER.fullmatch(value)
        if match is None:
            raise ValueError(f"{value!r} is not {what}; write for example {example}")
        number, unit = float(match[1]), match[2]
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is not {what}; write for example {example}")
    return number, unit


def parse_bytes(value: object) -> int:
    """Bytes from ``20GB`` (powers of 1,000), ``512MiB`` (powers of 1,024) or a bare number of MB. Raises ValueError."""
    number, unit = _split(value, "an amount of memory", "512MiB or 20GB")
    factor = _BYTES.get(unit or "MB")
    if factor is None:
        raise ValueError(f"{value!r} has an unknown unit; use one of {', '.join(_BYTES)}")
    if number * factor >= _MOST_BYTES:
        raise ValueError(f"{value!r} is not an amount of memory; write for example 512MiB or 20GB")
    return round(number * factor)


def parse_cores(value: object) -> float:
    """Processor cores from ``2``, ``0.5`` or ``500m`` (thousandths). Raises ValueError."""
    number, unit = _split(value, "a number of cores", "2, 0.5 or 500m")
    if unit not in {"", "m"}:
        raise ValueError(f"{value!r} has an unknown unit; write 2, 0.5 or 500m")
    cores = number / 1000 if unit == "m" else number
    if cores == 0:
        raise ValueError(f"{value!r} is no core at all; write for example 0.5")
    return cores


def parse_seconds(value: object) -> float:
    """Seconds from ``30s``, ``500ms``, ``2m``, ``1h`` or a bare number. Raises ValueError."""
    number, unit = _split(value, "a length of time", "30s or 500ms")
    factor = _SECONDS.get(unit or "s")
    if factor is None:
        raise ValueError(f"{value!r} has an unknown unit; use one of {', '.join(_SECONDS)}")
    seconds = number * factor
    if seconds == 0:
        raise ValueError(f"{value!r} is no time at all; write for example 30s")
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} is not a length of time; write for example 30s or 500ms")
    return seconds
