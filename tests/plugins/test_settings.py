"""What bitcoin-blockfiles accepts as configuration, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.plugins.folder import BlocksFolder, payload, record
from tests.plugins.host import ERROR, InitFailed, PluginHost


@pytest.fixture
def folder(tmp_path: Path) -> BlocksFolder:
    folder = BlocksFolder(tmp_path / 'blöcke "1"\\ 𝄞')
    folder.append(0, record(payload(0)))
    return folder


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"follow": False},
        {"follow": "false"},
        {"follow": True},
        {"follow": "true"},
        {"start_height": 0},
        {"start_height": 7},
        {"start_height": "7"},
        {"start_height": 2147483647},
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_accepted(blockfiles: Path, folder: BlocksFolder, more: dict[str, object], ascii_only: bool) -> None:
    configuration = {"blocks_dir": str(folder.path), "network": "regtest", **more}
    text = json.dumps(configuration, ensure_ascii=ascii_only, indent=1).encode()
    with PluginHost(blockfiles, {}, raw_configuration=text) as host:
        assert host.until_idle() == [payload(0)]
        height = more.get("start_height")
        assert host.blocks[0].height == (None if height is None else int(str(height)))


def refusal(library: Path, text: bytes) -> str:
    with pytest.raises(InitFailed) as caught, PluginHost(library, {}, raw_configuration=text):
        pass
    assert caught.value.code == 2
    ((level, line),) = caught.value.log
    assert level == ERROR
    return line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{}", "blocks_dir is not set: set it to the node's blocks folder, which holds blk00000.dat"),
        ('{"blocks_dir": ""}', "blocks_dir is '': it must be the path of the node's blocks folder"),
        ('{"blocks_dir": 1}', "blocks_dir is '1': it must be the path of the node's blocks folder"),
        ('{"blocks_dir": null}', "blocks_dir is 'null': it must be the path of the node's blocks folder"),
        ('{"blocks": "/"}', "unknown key 'blocks': allowed are blocks_dir, network, follow, start_height"),
        ('{"network": "mainnet"}', "network is 'mainnet': it must be one of main, testnet3, testnet4, signet, regtest"),
        ('{"network": true}', "network is 'true': it must be one of main, testnet3, testnet4, signet, regtest"),
        ('{"follow": "yes"}', "follow is 'yes': it must be true or false"),
        ('{"follow": 1}', "follow is '1': it must be true or false"),
        ('{"start_height": -1}', "start_height is '-1': it must be a whole number from 0 to 2147483647"),
        ('{"start_height": 1.5}', "start_height is '1.5': it must be a whole number from 0 to 2147483647"),
        ('{"start_height": 2147483648}', "start_height is '2147483648': it must be a whole number from 0 to 2147483647"),
        ('{"start_height": "99999999999999999999"}',
         "start_height is '99999999999999999999': it must be a whole number from 0 to 2147483647"),
        ('{"start_height": ""}', "start_height is '': it must be a whole number from 0 to 2147483647"),
        ('{"start_height": true}', "start_height is 'true': it must be a whole number from 0 to 2147483647"),
        ('{"follow": true, "follow": true}', "follow is set twice: set it once"),
    ],
)  # fmt: skip
def test_wrong_values(blockfiles: Path, text: str, line: str) -> None:
    assert refusal(blockfiles, text.encode()) == f"configuration: {line}"


@pytest.mark.parametrize(
    ("text", "where", "error"),
    [
        (b"", 0, "the configuration is not an object"),
        (b"[]", 0, "the configuration is not an object"),
        (b"{", 1, "a string was expected"),
        (b'{"follow" true}', 10, "a colon was expected"),
        (b'{"follow": true', 15, "a comma or a closing brace was expected"),
        (b'{"follow": true,}', 16, "a string was expected"),
        (b'{"follow": true} x', 17, "something follows the object"),
        (b'{"follow": tru}', 11, "a value was expected"),
        (b'{"follow": {}}', 11, "a value is an object or a list: only strings, numbers, true and false are allowed"),
        (b'{"follow": "', 12, "a string does not end"),
        (b'{"follow": "\n"}', 12, "a control character inside a string"),
        (b'{"follow": "\\x"}', 13, "an unknown escape inside a string"),
        (b'{"follow": "\\u12g4"}', 16, "\\\\u is not followed by four hexadecimal digits"),
        (b'{"follow": "\\ud800"}', 18, "half of a surrogate pair"),
        (b'{"follow": "\\ud800\\u0041"}', 24, "half of a surrogate pair"),
        (b'{"follow": "\\udc00"}', 18, "half of a surrogate pair"),
        (b'{"blocks_dir": "a\\u0000b"}', 23, "a NUL character is not allowed"),
        (b'{"follow": 01}', 13, "not a number"),
        (b'{"follow": 1.}', 13, "not a number"),
        (b'{"follow": 1e}', 13, "not a number"),
        (b'{"follow": -}', 12, "not a number"),
        (b'{"follow": "' + b"x" * 5000 + b'"}', 4108, "a key or value is too long"),
    ],
)
def test_what_is_not_a_flat_json_object(blockfiles: Path, text: bytes, where: int, error: str) -> None:
    line = refusal(blockfiles, text).replace("\\\\", "\\")
    assert line == f"configuration: byte {where}: {error}: it must be one flat JSON object".replace("\\\\", "\\")


unknown_keys = st.text(max_size=10).filter(lambda key: key not in ("blocks_dir", "network", "follow", "start_height"))
values = st.one_of(
    st.text(max_size=40), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
)


@given(st.dictionaries(unknown_keys, values, min_size=1, max_size=3), st.booleans())
def test_any_json_is_understood_far_enough_to_name_the_key(
    blockfiles: Path, configuration: dict[str, object], ascii_only: bool
) -> None:
    assume("\\u0000" not in json.dumps(configuration))
    text = json.dumps(configuration, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert "unknown key" in refusal(blockfiles, text)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_without_harm(blockfiles: Path, text: bytes) -> None:
    assert refusal(blockfiles, text).startswith("configuration: ")


@given(st.data())
def test_any_cut_of_a_configuration_is_refused(blockfiles: Path, data: st.DataObject) -> None:
    text = b'{"network": "regtest", "follow": true, "start_height": 12e5, "blocks_dir": "\\u00e4\\ud834\\udd1e"}'
    cut = data.draw(st.integers(0, len(text) - 1))
    assert refusal(blockfiles, text[:cut]).startswith("configuration: ")


def test_a_host_that_does_not_grant_the_sink(blockfiles: Path, folder: BlocksFolder) -> None:
    with pytest.raises(InitFailed) as caught, PluginHost(blockfiles, {}, capabilities=frozenset()):
        pass
    assert caught.value.code == 1
    assert caught.value.log == [
        (
            ERROR,
            "the host does not give supervm.block_sink/1: it is too old, or its policy does not grant "
            "the capability block_stream",
        )
    ]


def test_manifest_agrees_with_the_library(blockfiles: Path, folder: BlocksFolder) -> None:
    written = yaml.safe_load((blockfiles.parent / "plugin.yaml").read_text())
    with PluginHost(blockfiles, {"blocks_dir": str(folder.path), "network": "regtest"}) as host:
        assert host.manifest == {key: written[key] for key in ("id", "name", "version", "chain", "capabilities")}
    assert written["security"]["read_paths"] == ["blocks_dir"]
