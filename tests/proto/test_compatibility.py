"""proto/ understands every peer that was generated from what was published before, and the check for that misses nothing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from tests.proto.compatibility import breaks

ROOT = Path(__file__).parents[2]
FROZEN = sorted((ROOT / "proto/frozen").glob("*.binpb"))


def compiled(folder: Path, *names: str) -> FileDescriptorSet:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}", "--include_imports"]
    done = subprocess.run(
        [*command, "--descriptor_set_out=/dev/stdout", *names], cwd=folder, capture_output=True, check=True, timeout=60
    )
    return FileDescriptorSet.FromString(done.stdout)


@pytest.fixture(scope="module")
def current() -> FileDescriptorSet:
    return compiled(ROOT / "proto", "ir.proto", "plugin_host.proto")


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
def test_nothing_that_was_published_is_broken(frozen: Path, current: FileDescriptorSet) -> None:
    assert breaks(FileDescriptorSet.FromString(frozen.read_bytes()), current) == []


def test_this_version_has_a_frozen_description() -> None:
    """So has each release: whoever raises the version freezes what it speaks."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in {path.stem for path in FROZEN}, f"run tools/generate-messages --freeze {version}"


def test_a_release_is_described_with_all_that_it_needs() -> None:
    """By itself, so that it can be compared when the files that it was made of are gone: IR, host and what they import."""
    for path in FROZEN:
        files = FileDescriptorSet.FromString(path.read_bytes()).file
        names = {file.name for file in files}
        assert {name for file in files for name in file.dependency} <= names
        assert path.stem == "v0" or {"ir.proto", "plugin_host.proto"} <= names


def test_the_frozen_v0_is_the_published_draft() -> None:
    frozen = FileDescriptorSet.FromString((ROOT / "proto/frozen/v0.binpb").read_bytes())
    (file,) = [file for file in frozen.file if file.package == "supervm.plugin"]
    kinds = {9: "string", 12: "bytes", 8: "bool", 4: "uint64", 11: "message"}
    said = {
        message.name: [
            (field.number, field.name, ("repeated " if field.label == field.LABEL_REPEATED else "") + kinds[field.type])
            for field in message.field
        ]
        for message in file.message_type
    }
    assert said == {
        "RegisterRequest": [
            (1, "name", "string"),
            (2, "version", "string"),
            (3, "chain", "string"),
            (4, "capabilities", "repeated string"),
            (5, "manifest_json", "string"),
        ],
        "RegisterResponse": [(1, "plugin_id", "string"), (2, "accepted", "bool"), (3, "message", "string")],
        "BlockMessage": [
            (1, "chain", "string"),
            (2, "height", "uint64"),
            (3, "block_bytes", "bytes"),
            (4, "block_ir_json", "string"),
            (5, "timestamp", "message"),
        ],
        "ReorgMessage": [
            (1, "chain", "string"),
            (2, "from_height", "uint64"),
            (3, "to_height", "uint64"),
            (4, "orphan_block_hashes", "repeated bytes"),
        ],
        "SubmitTxRequest": [(1, "chain", "string"), (2, "tx", "bytes")],
        "SubmitTxResponse": [(1, "accepted", "bool"), (2, "tx_hash", "string"), (3, "error", "string")],
        "HealthRequest": [],
        "HealthResponse": [(1, "ok", "bool"), (2, "status", "string")],
    }
    (service,) = file.service
    assert [
        (m.name, m.input_type, m.output_type, m.client_streaming, m.server_streaming) for m in service.method
    ] == [
        ("Register", ".supervm.plugin.RegisterRequest", ".supervm.plugin.RegisterResponse", False, False),
        ("StreamBlocks", ".google.protobuf.Timestamp", ".supervm.plugin.BlockMessage", False, True),
        ("BlockExchange", ".supervm.plugin.BlockMessage", ".supervm.plugin.BlockMessage", True, True),
        ("SubmitTx", ".supervm.plugin.SubmitTxRequest", ".supervm.plugin.SubmitTxResponse", False, False),
        ("Health", ".supervm.plugin.HealthRequest", ".supervm.plugin.HealthResponse", False, False),
    ]  # fmt: skip
    assert service.name == "PluginHost"
    assert compiled(ROOT / "proto/frozen", "v0.proto") == frozen


def test_the_generated_classes_are_what_proto_gives() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/generate-messages", "--check"], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr


# ---- what the check finds ----------------------------------------------------------------------------------------------------


def message_of(files: FileDescriptorSet, name: str) -> DescriptorProto:
    return next(message for file in files.file for message in file.message_type if message.name == name)


def field_of(files: FileDescriptorSet, message: str, name: str) -> FieldDescriptorProto:
    return next(field for field in message_of(files, message).field if field.name == name)


def enum_of(files: FileDescriptorSet, name: str) -> EnumDescriptorProto:
    return next(enum for file in files.file for enum in file.enum_type if enum.name == name)


def call_of(files: FileDescriptorSet, name: str) -> MethodDescriptorProto:
    return next(m for file in files.file for service in file.service for m in service.method if m.name == name)


def renumber(files: FileDescriptorSet) -> None:
    field_of(files, "BlockMessage", "block_bytes").number = 40


def swap_numbers(files: FileDescriptorSet) -> None:
    chain, position = field_of(files, "BlockMessage", "hash"), field_of(files, "BlockMessage", "parent")
    chain.number, position.number = position.number, chain.number


def retype(files: FileDescriptorSet) -> None:
    field_of(files, "BlockMessage", "height").type = FieldDescriptorProto.TYPE_SINT64


def retype_string(files: FileDescriptorSet) -> None:
    field_of(files, "RegisterRequest", "manifest_json").type = FieldDescriptorProto.TYPE_BYTES


def retype_message(files: FileDescriptorSet) -> None:
    field_of(files, "BlockMessage", "reorg").type_name = ".supervm.plugin.Batch"


def relabel(files: FileDescriptorSet) -> None:
    field_of(files, "RegisterRequest", "capabilities").label = FieldDescriptorProto.LABEL_OPTIONAL


def drop_presence(files: FileDescriptorSet) -> None:
    field = field_of(files, "BlockMessage", "final_height")
    field.ClearField("proto3_optional")
    field.ClearField("oneof_index")


def rename(files: FileDescriptorSet) -> None:
    field_of(files, "SubmitTxResponse", "tx_hash").name = "hash"


def rename_in_json(files: FileDescriptorSet) -> None:
    field_of(files, "SubmitTxResponse", "tx_hash").json_name = "hash"


def leave_oneof(files: FileDescriptorSet) -> None:
    field_of(files, "BlockMessage", "reorg").ClearField("oneof_index")


def remove(files: FileDescriptorSet) -> None:
    fields = message_of(files, "RegisterRequest").field
    fields.remove(field_of(files, "RegisterRequest", "version"))


def remove_and_reserve_number(files: FileDescriptorSet) -> None:
    remove(files)
    message_of(files, "RegisterRequest").reserved_range.add(start=2, end=3)


def remove_and_reserve_another(files: FileDescriptorSet) -> None:
    remove(files)
    message_of(files, "RegisterRequest").reserved_name.append("version")
    message_of(files, "RegisterRequest").reserved_range.add(start=3, end=4)


def remove_message(files: FileDescriptorSet) -> None:
    file = next(file for file in files.file if file.package == "supervm.plugin")
    file.message_type.remove(message_of(files, "Finalized"))


def rename_enum_value(files: FileDescriptorSet) -> None:
    enum_of(files, "Step").value[1].name = "STEP_REVERT"


def remove_enum_value(files: FileDescriptorSet) -> None:
    del enum_of(files, "Step").value[2]


def remove_call(files: FileDescriptorSet) -> None:
    service = next(service for file in files.file for service in file.service)
    service.method.remove(call_of(files, "Heartbeat"))


def rename_call(files: FileDescriptorSet) -> None:
    call_of(files, "SubmitTx").name = "Submit"


def change_streaming(files: FileDescriptorSet) -> None:
    call_of(files, "StreamBlocks").server_streaming = False


def change_upload(files: FileDescriptorSet) -> None:
    call_of(files, "BlockExchange").client_streaming = False


def change_answer(files: FileDescriptorSet) -> None:
    call_of(files, "Health").output_type = ".supervm.plugin.HeartbeatResponse"


def change_request(files: FileDescriptorSet) -> None:
    call_of(files, "StreamBlocks").input_type = ".supervm.plugin.RegisterRequest"


def rename_package(files: FileDescriptorSet) -> None:
    next(file for file in files.file if file.package == "supervm.plugin").package = "supervm.host"


def change_syntax(files: FileDescriptorSet) -> None:
    next(file for file in files.file if file.package == "supervm.plugin").syntax = "proto2"


Mutation = Callable[[FileDescriptorSet], None]
BREAKS: list[tuple[Mutation, str]] = [
    (renumber, "block_bytes (3): gone"),
    (swap_numbers, "hash (6): its name"),
    (retype, "height (2): its type"),
    (retype_string, "manifest_json (5): its type"),
    (retype_message, "reorg (20): its type"),
    (relabel, "capabilities (4): its label"),
    (drop_presence, "final_height (11): its label"),
    (rename, "tx_hash (2): its name"),
    (rename_in_json, "tx_hash (2): its name in JSON"),
    (leave_oneof, "reorg (20): its oneof"),
    (remove, "version (2): gone"),
    (remove_and_reserve_number, "version (2): gone"),
    (remove_and_reserve_another, "version (2): gone"),
    (remove_message, "Finalized: the message is gone"),
    (rename_enum_value, "STEP_UNDO (1): its name"),
    (remove_enum_value, "STEP_FINAL (2): gone"),
    (remove_call, "Heartbeat: the call is gone"),
    (rename_call, "SubmitTx: the call is gone"),
    (change_streaming, "StreamBlocks: server_streaming"),
    (change_upload, "BlockExchange: client_streaming"),
    (change_answer, "Health: it answers"),
    (change_request, "StreamBlocks: it takes"),
    (rename_package, "the service is gone"),
    (change_syntax, "the syntax was proto3"),
]


@pytest.mark.parametrize(("mutation", "found"), BREAKS, ids=[mutation.__name__ for mutation, _ in BREAKS])
def test_a_break_is_found(mutation: Mutation, found: str, current: FileDescriptorSet) -> None:
    changed = FileDescriptorSet()
    changed.CopyFrom(current)
    mutation(changed)
    assert any(found in each for each in breaks(current, changed)), breaks(current, changed)


def test_a_reserved_number_is_not_used_again(current: FileDescriptorSet) -> None:
    before = FileDescriptorSet()
    before.CopyFrom(current)
    message_of(before, "RegisterRequest").reserved_range.add(start=9, end=10)
    after = FileDescriptorSet()
    after.CopyFrom(current)
    message_of(after, "RegisterRequest").field.add(name="more", number=9, type=9, label=1)
    assert breaks(before, after) == [".supervm.plugin.RegisterRequest.more: the number 9 was reserved"]


def test_what_is_added_or_reserved_breaks_nothing(current: FileDescriptorSet) -> None:
    changed = FileDescriptorSet()
    changed.CopyFrom(current)
    message_of(changed, "RegisterRequest").field.add(name="more", number=9, type=9, label=1, json_name="more")
    enum_of(changed, "Step").value.add(name="STEP_MORE", number=3)
    service = next(service for file in changed.file for service in file.service)
    service.method.add(name="More", input_type=".supervm.plugin.HealthRequest", output_type=".supervm.plugin.HealthResponse")
    remove(changed)
    message_of(changed, "RegisterRequest").reserved_name.append("version")
    message_of(changed, "RegisterRequest").reserved_range.add(start=2, end=3)
    del enum_of(changed, "Step").value[2]
    enum_of(changed, "Step").reserved_name.append("STEP_FINAL")
    enum_of(changed, "Step").reserved_range.add(start=2, end=2)
    assert breaks(current, changed) == []
