"""One plugin, compiled once; tests that are coroutines run in Trio."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path

import pytest
import trio

from supervm_rt.trust.policy import Placement
from tests.network.support import Scene, compile_client


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = inspect.signature(pyfuncitem.obj).parameters
    trio.run(partial(pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in arguments}))
    return True


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_client(tmp_path_factory.mktemp("client"))


@pytest.fixture
def placement(request: pytest.FixtureRequest) -> Placement:
    found: Placement = getattr(request, "param", Placement.IN_PROCESS)
    return found


@pytest.fixture
def scene(tmp_path: Path, client: Path, placement: Placement) -> Scene:
    return Scene(tmp_path, client, placement)
