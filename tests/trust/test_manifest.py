"""plugin.yaml: every field parsed, every fault named (clauses M1, A1, X1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervm_rt.errors import ManifestError, ManifestMismatch
from supervm_rt.model.manifest import Capability, RestartPolicy, RunMode
from supervm_rt.trust.documents import DocumentFault, Loader, PortableLoader, read_yaml
from supervm_rt.trust.manifest import compare_with_binary, parse_manifest

ROOT = Path(__file__).parents[2]
MINIMAL = """
id: org.example.minimal
name: minimal
version: "1.2.3"
chain: dev
capabilities: [block_stream]
binary: ./minimal.so
"""


def test_example_manifest_says_every_field() -> None:
    manifest = parse_manifest((ROOT / "docs/plugins/example-plugin.yaml").read_bytes())
    assert manifest.id == "org.example.bitcoind"
    assert manifest.name == "example-bitcoind-submodule"
    assert manifest.version == "0.1.0"
    assert manifest.chain == "bitcoin"
    assert manifest.capabilities == {Capability.BLOCK_STREAM, Capability.SUBMIT_TX, Capability.RPC_PROXY}
    assert manifest.run_mode is RunMode.NATIVE
    assert manifest.binary == "./bin/example-bitcoind"
    assert manifest.resources.cpu == 2
    assert manifest.resources.memory == 4096 * 10**6
    assert manifest.resources.storage == 20 * 10**9
    assert manifest.security.sandbox
    assert manifest.security.seccomp_profile == "baseline"
    assert manifest.security.read_paths == ("blocks_dir",)
    assert [entry.text for entry in manifest.network.allow][2:] == [
        "192.168.1.0/24:8332-8334",
        "[fd00::1]:8332",
        "localhost:8332",
    ]
    assert [entry.text for entry in manifest.network.listen] == ["127.0.0.1:8331"]
    assert manifest.heartbeat == 30
    assert manifest.restart is RestartPolicy.ON_FAILURE
    assert manifest.signature is not None
    assert manifest.signature.startswith("sha256:")
    assert "no such plugin" in manifest.notes


def test_example_manifest_comments_every_field() -> None:
    lines = (ROOT / "docs/plugins/example-plugin.yaml").read_text().splitlines()
    fields = [(number, line) for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(("#", "-"))]
    uncommented = [
        line for number, line in fields if ":" in line and "#" not in line and not lines[number - 1].lstrip().startswith("#")
    ]
    assert uncommented == ["  An example: there is no such plugin. plugins/bitcoin-blockfiles is one that works."]


def test_schema_describes_every_field_of_the_example() -> None:
    schema = json.loads((ROOT / "src/supervm_rt/trust/manifest.schema.json").read_text())
    assert all("description" in field for field in schema["properties"].values())
    for group in ("resources", "security", "network"):
        assert all("description" in field for field in schema["properties"][group]["properties"].values())


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").glob("*/plugin.yaml")), ids=lambda path: path.parent.name)
def test_shipped_manifests_are_valid(path: Path) -> None:
    manifest = parse_manifest(path.read_bytes(), source=str(path))
    assert Capability.BLOCK_STREAM in manifest.capabilities


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("id: Not A Domain", "id: 'Not A Domain' does not have the form"),
        ("version: 1.2", "version: 1.2 is not of type string (quote it)"),
        ("capabilities: [fly]", "capabilities[0]: 'fly' is not one of block_stream"),
        ("capabilities: block_stream", "capabilities: 'block_stream' is not of type array"),
        ("binary: /usr/lib/evil.so", "binary: an absolute path"),
        ("binary: ../evil.so", "binary: a path out of the manifest's folder"),
        ("runMode: wasm", "runMode: 'wasm' is not one of native, grpc"),
        ("colour: blue", "unknown key 'colour' (known: id, name"),
        ("resources: {memory: lots}", "resources.memory: 'lots' is not an amount of memory"),
        ("resources: {memory: 5 parsecs}", "resources.memory: '5 parsecs' has an unknown unit"),
        ("resources: {cpu: 0}", "resources.cpu: 0 is no core at all"),
        ("resources: {disk: 5}", "resources: unknown key 'disk'"),
        ("security: {sandbox: maybe}", "security.sandbox: 'maybe' is not of type boolean"),
        ("heartbeat: -3", "heartbeat: -3 is not a length of time"),
        ("heartbeat: .nan", "heartbeat: nan is not a length of time"),
        ("restart: sometimes", "restart: 'sometimes' is not one of never"),
        ("notes: !!bool maybe", "line 8, column 8: 'maybe' is not a bool"),
        ("notes: !!timestamp soon", "line 8, column 8: 'soon' is not a timestamp"),
        ("notes: !!int ''", "line 8, column 8: '' is not an int"),
        ("notes: !!float ''", "line 8, column 8: '' is not a float"),
        ("notes: !!set a", "line 8, column 8: expected a mapping node, but found scalar"),
        ("notes: 2001-02-30", "line 8, column 8: '2001-02-30' is not a timestamp"),
        ("notes: 0x" + "f" * 5000, "line 8, column 8: a number of 5002 characters"),
        ("notes: 1" + ":59" * 5000 + ".5", "line 8, column 8: a number of"),
        ("resources: {memory: 1.0e+305}", "resources.memory: 1e+305 is not an amount of memory"),
        (f"resources: {{memory: '{'9' * 300}TB'}}", "is not an amount of memory"),
        ("resources: {memory: 8388608TiB}", "resources.memory: '8388608TiB' is not an amount of memory"),
        ("resources: {storage: 20000000TiB}", "resources.storage: '20000000TiB' is not an amount of memory"),
        ("heartbeat: 31d", "heartbeat: '31d' is longer than a heartbeat can be; write at most 30d"),
        (f"heartbeat: '{'9' * 306}h'", "is not a length of time"),
        (f"heartbeat: '0.{'0' * 322}9ms'", "is no time at all"),
        ('id: "org.example\\n"', "id: 'org.example\\n' does not have the form"),
        ('version: "1.2.3\\n"', "version: '1.2.3\\n' does not have the form"),
        ('name: "\\ud800"', "line 7, column"),
    ],
)
def test_a_wrong_field_is_named(change: str, says: str) -> None:
    key = change.partition(":")[0]
    kept = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(f"{key}:"))
    with pytest.raises(ManifestError) as caught:
        parse_manifest(f"{kept}\n{change}\n".encode(), source="x/plugin.yaml")
    assert str(caught.value).startswith("x/plugin.yaml: ")
    assert says in str(caught.value)
    assert caught.value.blame == "operator"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not of type object"),
        (b"- a\n- b\n", "not of type object"),
        (b"id: a\nid: b\n", "the key 'id' stands twice"),
        (b"5: a\n", "the key 5 is not text"),
        (b"a: &x 1\nb: *x\n", "anchors and aliases"),
        (b"a: [1, 2\n", "line 2"),
        (b"a: \xff\n", "byte 3 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"a" * (1 << 21), "more than the 1048576 that are read"),
        (b"!!python/object/apply:os.system [id]", "could not determine a constructor"),
        (b"a: \x00\n", "special characters are not allowed"),
    ],
)
def test_a_broken_document_is_named(data: bytes, says: str) -> None:
    with pytest.raises(ManifestError, match="plugin.yaml") as caught:
        parse_manifest(data)
    assert says in str(caught.value)


def test_a_native_plugin_needs_a_binary() -> None:
    with pytest.raises(ManifestError, match="missing key 'binary'"):
        parse_manifest(MINIMAL.replace("binary: ./minimal.so\n", "").encode())
    external = parse_manifest(MINIMAL.replace("binary: ./minimal.so\n", "runMode: grpc\n").encode())
    assert external.binary is None


@given(st.binary(max_size=400))
def test_any_bytes_give_a_manifest_or_a_manifest_error(data: bytes) -> None:
    try:
        manifest = parse_manifest(data)
    except ManifestError as error:
        assert "\n" not in str(error)
    else:
        assert manifest.id


@given(
    st.dictionaries(
        st.sampled_from(["id", "name", "version", "chain", "capabilities", "binary", "resources", "security", "heartbeat", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=6,
        ),
    )
)
def test_any_values_give_a_manifest_or_a_manifest_error(document: dict[str, object]) -> None:
    try:
        parse_manifest(json.dumps(document).encode())
    except ManifestError as error:
        assert error.remedy


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2.5, yes, null, 2001-02-03]",
        "a: !!bool maybe",
        "a: *x",
        "a: {b: 1, b: 2}",
        "a: \0",
        "a: 0x" + "f" * 200,
        "[" * 5000,
    ],
)
def test_both_readers_of_yaml_agree(text: str) -> None:
    def answer(loader: object) -> str:
        try:
            return repr(read_yaml(text.encode(), loader=loader))
        except DocumentFault as fault:
            return str(fault)

    assert answer(Loader) == answer(PortableLoader)


def test_the_first_fault_of_a_large_document_is_found_at_once() -> None:
    with pytest.raises(ManifestError, match="a number of"):
        parse_manifest(b"notes: 1" + b":59" * 300_000)


class TestCompareWithBinary:
    manifest: ClassVar = parse_manifest(MINIMAL.encode())
    said: ClassVar[dict[str, object]] = {
        "id": "org.example.minimal",
        "name": "minimal",
        "version": "1.2.3",
        "chain": "dev",
        "capabilities": ["block_stream"],
    }

    def test_agreement(self) -> None:
        compare_with_binary(self.manifest, json.dumps(self.said | {"resources": {"cpu": 64}}).encode())

    def test_a_deep_value_is_named_in_short(self) -> None:
        for depth in range(400, 1000, 7):
            deep = b'{"capabilities": ' + b"[" * depth + b"]" * depth + b"}"
            with pytest.raises(ManifestMismatch, match=r"disagree: id is None|not JSON") as caught:
                compare_with_binary(self.manifest, deep)
            assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize("key", ["id", "name", "version", "chain"])
    def test_each_difference_is_named(self, key: str) -> None:
        with pytest.raises(ManifestMismatch, match=f"{key} is 'other' in the binary") as caught:
            compare_with_binary(self.manifest, json.dumps(self.said | {key: "other"}).encode())
        assert caught.value.blame == "plugin"

    @pytest.mark.parametrize("capabilities", [[], ["block_stream", "submit_tx"], "block_stream", None, [1], ["block_stream"] * 2])
    def test_other_capabilities_are_refused(self, capabilities: object) -> None:
        with pytest.raises(ManifestMismatch, match="capabilities is"):
            compare_with_binary(self.manifest, json.dumps(self.said | {"capabilities": capabilities}).encode())

    @pytest.mark.parametrize("said", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'"text"'])
    def test_what_is_no_json_object_is_refused(self, said: bytes) -> None:
        with pytest.raises(ManifestMismatch, match=r"not (a )?JSON"):
            compare_with_binary(self.manifest, said)
