"""Amounts as people write them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from supervm_rt.trust.units import parse_bytes, parse_cores, parse_seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20GB", 20 * 10**9),
        ("512MiB", 512 << 20),
        ("512 MiB", 512 << 20),
        (4096, 4096 * 10**6),
        ("1.5GiB", 3 << 29),
        ("7B", 7),
        (0, 0),
    ],
)
def test_bytes(text: object, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(("text", "value"), [(2, 2.0), ("0.5", 0.5), ("500m", 0.5), (0.25, 0.25)])
def test_cores(text: object, value: float) -> None:
    assert parse_cores(text) == value


@pytest.mark.parametrize(("text", "value"), [(30, 30.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("1.5s", 1.5)])
def test_seconds(text: object, value: float) -> None:
    assert parse_seconds(text) == value


@pytest.mark.parametrize("parse", [parse_bytes, parse_cores, parse_seconds])
@pytest.mark.parametrize("value", [None, True, "", "GB", "-1", -1, "1 2", "1e3", float("inf"), float("nan"), [], "٣"])
def test_anything_else_is_refused_with_an_example(parse: Callable[[object], float], value: object) -> None:
    with pytest.raises(ValueError, match=r"write for example|use one of"):
        parse(value)
