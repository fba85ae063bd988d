"""The first plugin of the README."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.plugins.host import PluginHost


def test_publishes_ten_blocks_and_ends(hello: Path) -> None:
    with PluginHost(hello, {}) as host:
        assert host.until_idle() == [f"hello, block {number}".encode() for number in range(10)]
        assert [block.height for block in host.blocks] == list(range(10))
        assert host.start_code == 0
        assert host.ends == 1


def test_goes_on_from_each_position(hello: Path) -> None:
    with PluginHost(hello, {}) as host:
        host.until_idle()
        positions = [block.position for block in host.blocks]
    for count, position in enumerate(positions, start=1):
        with PluginHost(hello, {}, position=position) as host:
            assert host.until_idle() == [f"hello, block {number}".encode() for number in range(count, 10)]


def test_is_refused_without_the_capability(hello: Path) -> None:
    with PluginHost(hello, {}, capabilities=frozenset()) as host:
        assert host.start_code == 2


def test_manifest_agrees_with_the_library(hello: Path) -> None:
    written = yaml.safe_load((hello.parent / "plugin.yaml").read_text())
    with PluginHost(hello, {}) as host:
        assert host.manifest == {key: written[key] for key in ("id", "name", "version", "chain", "capabilities")}
