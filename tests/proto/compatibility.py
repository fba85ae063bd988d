"""Whether a description of the protocol understands, and is understood by, one that was released before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

Reservable: TypeAlias = DescriptorProto | EnumDescriptorProto


@dataclass(frozen=True)
class Contents:
    """All that a set of files declares, by full name."""

    messages: Mapping[str, DescriptorProto]
    enums: Mapping[str, EnumDescriptorProto]
    services: Mapping[str, ServiceDescriptorProto]
    syntax: Mapping[str, str]
    """Of each package."""

    @classmethod
    def of(cls, files: FileDescriptorSet) -> Contents:
        messages: dict[str, DescriptorProto] = {}
        enums: dict[str, EnumDescriptorProto] = {}
        services: dict[str, ServiceDescriptorProto] = {}
        for file in files.file:
            for name, message in _messages(file):
                messages[name] = message
                enums |= {f"{name}.{enum.name}": enum for enum in message.enum_type}
            enums |= {f".{file.package}.{enum.name}": enum for enum in file.enum_type}
            services |= {f".{file.package}.{service.name}": service for service in file.service}
        return cls(messages, enums, services, {file.package: file.syntax for file in files.file})


def _messages(file: FileDescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    waiting = [(f".{file.package}.{message.name}", message) for message in file.message_type]
    while waiting:
        name, message = waiting.pop()
        yield name, message
        waiting += [(f"{name}.{inner.name}", inner) for inner in message.nested_type]


def breaks(before: FileDescriptorSet, after: FileDescriptorSet) -> list[str]:
    """What a peer that was generated from ``before`` would stumble over; nothing, where all is well."""
    old, new = Contents.of(before), Contents.of(after)
    found = [
        f"{package}: the syntax was {syntax}, and is {new.syntax.get(package, 'gone')}"
        for package, syntax in old.syntax.items()
        if new.syntax.get(package) != syntax
    ]
    for name, message in old.messages.items():
        if name not in new.messages:
            found.append(f"{name}: the message is gone")
        else:
            found += _message_breaks(name, message, new.messages[name])
    for name, enum in old.enums.items():
        if name not in new.enums:
            found.append(f"{name}: the enum is gone")
        else:
            found += _enum_breaks(name, enum, new.enums[name])
    for name, service in old.services.items():
        if name not in new.services:
            found.append(f"{name}: the service is gone")
        else:
            found += _service_breaks(name, service, new.services[name], old, new)
    return found


def _is_reserved(holder: Reservable, number: int, name: str) -> bool:
    # The end of a range is outside it in a message, and inside it in an enum.
    last = 1 if isinstance(holder, DescriptorProto) else 0
    return name in holder.reserved_name and any(each.start <= number <= each.end - last for each in holder.reserved_range)


def _oneof(message: DescriptorProto, field: FieldDescriptorProto) -> str | None:
    real = field.HasField("oneof_index") and not field.proto3_optional
    return message.oneof_decl[field.oneof_index].name if real else None


def _message_breaks(name: str, old: DescriptorProto, new: DescriptorProto) -> Iterator[str]:
    there = {field.number: field for field in new.field}
    for field in old.field:
        now = there.get(field.number)
        what = f"{name}.{field.name} ({field.number})"
        if now is None:
            if not _is_reserved(new, field.number, field.name):
                yield f"{what}: gone, and its number and name are not both reserved"
            continue
        for aspect, was, is_ in (
            ("name", field.name, now.name),
            ("name in JSON", field.json_name, now.json_name),
            ("type", (field.type, field.type_name), (now.type, now.type_name)),
            ("label", (field.label, field.proto3_optional), (now.label, now.proto3_optional)),
            ("packing", field.options.packed, now.options.packed),
            ("default", field.default_value, now.default_value),
            ("oneof", _oneof(old, field), _oneof(new, now)),
        ):
            if was != is_:
                yield f"{what}: its {aspect} was {was!r}, and is {is_!r}"
    for reserved in old.reserved_range:
        yield from (
            f"{name}.{field.name}: the number {field.number} was reserved"
            for field in new.field
            if reserved.start <= field.number < reserved.end
        )


def _enum_breaks(name: str, old: EnumDescriptorProto, new: EnumDescriptorProto) -> Iterator[str]:
    there = {value.number: value.name for value in new.value}
    for value in old.value:
        now = there.get(value.number)
        if now is None and not _is_reserved(new, value.number, value.name):
            yield f"{name}.{value.name} ({value.number}): gone, and its number and name are not both reserved"
        elif now is not None and now != value.name:
            yield f"{name}.{value.name} ({value.number}): its name is {now} now"


def _service_breaks(
    name: str, old: ServiceDescriptorProto, new: ServiceDescriptorProto, before: Contents, after: Contents
) -> Iterator[str]:
    there = {method.name: method for method in new.method}
    for method in old.method:
        now = there.get(method.name)
        if now is None:
            yield f"{name}/{method.name}: the call is gone"
            continue
        for aspect in ("client_streaming", "server_streaming"):
            if getattr(method, aspect) != getattr(now, aspect):
                yield f"{name}/{method.name}: {aspect} is {getattr(now, aspect)} now"
        yield from _type_breaks(f"{name}/{method.name}", method, now, before, after)


def _type_breaks(
    what: str, old: MethodDescriptorProto, new: MethodDescriptorProto, before: Contents, after: Contents
) -> Iterator[str]:
    if old.output_type != new.output_type:
        yield f"{what}: it answers {new.output_type} in the place of {old.output_type}"
    if old.input_type == new.input_type:
        return
    # Another request is right where it reads the old one off the wire.
    was, is_ = before.messages[old.input_type], after.messages.get(new.input_type)
    reads = is_ is not None and not list(_message_breaks(old.input_type, was, is_))
    if not reads:
        yield f"{what}: it takes {new.input_type}, which does not read {old.input_type} off the wire"
