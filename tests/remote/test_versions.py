"""``http2.py`` looks into two libraries: it is read again before another version of them is pinned."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from supervm_rt.transports.remote.http2 import CHECKED


@pytest.mark.parametrize("name", CHECKED)
def test_the_versions_are_those_that_it_was_written_for(name: str) -> None:
    assert version(name) == CHECKED[name]
