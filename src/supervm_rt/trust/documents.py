"""YAML that people wrote, read strictly, and checked against a JSON Schema with messages that name the place."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator
from functools import cache
from importlib import resources
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

MAX_DOCUMENT_BYTES = 1 << 20
_MOST_FAULTS_SHOWN = 5
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_DIGITS = 100
"""Characters of the longest number: Python's own whole numbers have no end, and take time that grows with its square."""


class DocumentFault(ValueError):
    """The document is not what it must be; the text is one line for a person."""


class _Strict(Composer):
    """Safe YAML without what makes two readers disagree or one work for long: duplicate keys, aliases, keys that are no text,
    numbers without end, values that are not what their tag says.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # type: ignore[attr-defined]
            event = self.get_event()  # type: ignore[attr-defined]
            raise yaml.constructor.ConstructorError(None, None, "anchors and aliases are not allowed here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        tag = node.tag.rpartition(":")[2]
        if isinstance(node, yaml.ScalarNode) and tag in {"int", "float"} and len(node.value) > _MOST_DIGITS:
            raise yaml.constructor.ConstructorError(None, None, f"a number of {len(node.value)} characters", node.start_mark)
        try:
            value = super().construct_object(node, deep=deep)  # type: ignore[misc]
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError):
            # What the constructors of explicit tags raise for text that they did not expect: !!bool maybe
            what = f"{_short(node.value)} is not {'an' if tag == 'int' else 'a'} {tag}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None
        if isinstance(value, str) and _SURROGATE.search(value):
            raise yaml.constructor.ConstructorError(None, None, "half of a surrogate pair is no character", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        # A scalar with the tag !!set comes here too; the constructor below refuses it.
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {_short(key)} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {_short(key)} stands twice", key_node.start_mark)
            seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)  # type: ignore[misc]
        return mapping


class PortableLoader(_Strict, yaml.SafeLoader):
    """The strict reader where PyYAML comes without libyaml."""


Loader: Any = PortableLoader
if yaml.__with_libyaml__:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class NativeLoader(_Strict, CParser, SafeConstructor, Resolver):
        """The strict reader, on libyaml: several times faster. Nodes are still composed here, by the same rules."""

        def __init__(self, stream: str) -> None:
            CParser.__init__(self, stream)
            _Strict.__init__(self)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)

        def dispose(self) -> None:
            """What yaml.load calls at the end."""
            CParser.dispose(self)

    Loader = NativeLoader


def read_yaml(data: bytes, *, loader: Any = Loader) -> object:
    """The document's values. Raises DocumentFault."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DocumentFault(f"{len(data)} bytes are more than the {MAX_DOCUMENT_BYTES} that are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentFault(f"byte {error.start} is not UTF-8") from None
    try:
        return yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DocumentFault(f"{place}{error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise DocumentFault(f"position {error.position}: special characters are not allowed") from None
    except yaml.YAMLError as error:
        raise DocumentFault(" ".join(str(error).split())) from None
    except RecursionError:
        raise DocumentFault("nested too deeply") from None


def _pattern(validator: object, pattern: str, instance: object, schema: object) -> Iterator[ValidationError]:
    # In JSON Schema $ is the end; in Python it also stands before a last line break.
    if isinstance(instance, str) and not re.search(re.sub(r"(?<!\\)\$$", r"\\Z", pattern), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


_Validator = validators.extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]


@cache
def _validator(package: str, name: str) -> Any:
    schema = json.loads(resources.files(package).joinpath(name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return _Validator(schema)


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
    """The value as it is written, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
