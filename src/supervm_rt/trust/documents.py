"""YAML that people wrote, read strictly, and checked against a JSON Schema with messages that name the place."""

from __future__ import annotations

import json
from collections.abc import Hashable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml
from jsonschema import Draft202012Validator

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MAX_DOCUMENT_BYTES = 1 << 20
_MOST_FAULTS_SHOWN = 5


class DocumentFault(ValueError):
    """The document is not what it must be; the text is one line for a person."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without what makes two readers disagree: duplicate keys, aliases, keys that are no text."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "anchors and aliases are not allowed here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(data: bytes) -> object:
    """The document's values. Raises DocumentFault."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DocumentFault(f"{len(data)} bytes are more than the {MAX_DOCUMENT_BYTES} that are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentFault(f"byte {error.start} is not UTF-8") from None
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DocumentFault(f"{place}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise DocumentFault(" ".join(str(error).split())) from None
    except RecursionError:
        raise DocumentFault("nested too deeply") from None
    except ValueError as error:  # a date that no calendar has, an endless number
        raise DocumentFault(str(error)) from None


@cache
def _validator(package: str, name: str) -> Draft202012Validator:
    schema = json.loads(resources.files(package).joinpath(name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_shape(document: object, *, package: str, schema: str) -> dict[str, Any]:
    """Checks document against the named JSON Schema of a package. Raises DocumentFault with every fault, up to five."""
    validator = _validator(package, schema)
    try:
        faults = sorted(validator.iter_errors(document), key=lambda error: [str(part) for part in error.absolute_path])
    except RecursionError:
        raise DocumentFault("nested too deeply") from None
    if faults:
        said = list(dict.fromkeys(map(_describe, faults)))
        if len(said) > _MOST_FAULTS_SHOWN:
            said[_MOST_FAULTS_SHOWN:] = [f"and {len(said) - _MOST_FAULTS_SHOWN} more"]
        raise DocumentFault("; ".join(said))
    if not isinstance(document, dict):
        raise DocumentFault("the document is not a mapping of keys to values")
    return document


def _describe(fault: ValidationError) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.absolute_path).lstrip(".")
    prefix = f"{place}: " if place else ""
    schema: Any = fault.schema
    wanted: Any = fault.validator_value
    instance: Any = fault.instance
    if fault.validator == "additionalProperties":
        known = ", ".join(schema.get("properties", {}))
        strangers = [key for key in instance if key not in schema.get("properties", {})]
        return f"{prefix}unknown key {', '.join(map(repr, strangers))} (known: {known})"
    if fault.validator == "enum":
        return f"{prefix}{_short(fault.instance)} is not one of {', '.join(map(str, wanted))}"
    if fault.validator == "type":
        kinds = wanted if isinstance(wanted, str) else " or ".join(wanted)
        hint = " (quote it)" if kinds == "string" and isinstance(fault.instance, int | float) else ""
        return f"{prefix}{_short(fault.instance)} is not of type {kinds}{hint}"
    if fault.validator == "pattern":
        return f"{prefix}{_short(fault.instance)} does not have the form {wanted}"
    if fault.validator == "required":
        missing = [key for key in wanted if key not in instance]
        return f"{prefix}missing key {', '.join(map(repr, missing))}"
    if fault.validator in {"minItems", "maxItems", "minLength", "maxLength"}:
        bound = "at least" if str(fault.validator).startswith("min") else "at most"
        things = "characters" if str(fault.validator).endswith("Length") else "items"
        return f"{prefix}{len(instance)} {things}; {bound} {wanted} are allowed"
    return f"{prefix}{fault.message[:200]}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
