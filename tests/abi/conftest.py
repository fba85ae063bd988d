"""Compiled plugins for the tests of the ABI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.abi.support import Compiler, Driver, Loaded, running


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return Compiler(tmp_path_factory.mktemp("plugins"))


@pytest.fixture(scope="session")
def mailbox(compiler: Compiler) -> bytes:
    return compiler.code("mailbox.c")


@pytest.fixture(scope="session")
def driver(compiler: Compiler) -> Driver:
    return Driver(compiler.build("driver.c"))


@pytest.fixture
def loaded(mailbox: bytes) -> Iterator[Loaded]:
    with running(mailbox, ring_bytes=1 << 16, side_ring_bytes=1 << 16) as plugin:
        yield plugin
