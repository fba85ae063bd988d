"""Invariant: any bytes make a document; most of them one that is nearly right.

Each pair of bytes is a field and one of the values that are known to be tried on it, or on any field.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

ANY = (
    *("", "null", "yes", "0", "-1", "1.5", ".nan", ".inf", "-.inf", "1e5", "0x1f", "0b11", "017", "1:59:59", "1_000", "9" * 90),
    *("9" * 120, "1.0e+308", "1.0e-320", "2001-02-03", "2001-02-30", "!!int ''", "!!float x", "!!bool x", "!!timestamp x"),
    *(
        "!!binary x",
        "!!binary AAAA",
        "!!set {a}",
        "!!omap [a: b]",
        "!!str 5",
        "!x y",
        "&a b",
        "*a",
        "[]",
        "{}",
        "[[[]]]",
        "{a: {b: c}}",
    ),
    *(
        '"\\n"',
        '"\\0"',
        '"\\ud800"',
        '"\\U0001f600"',
        "'é'",
        "|\n  text\n",
        ">-\n  text",
        "{<<: {a: b}}",
        "[a, a]",
        "{a: 1, a: 2}",
    ),
    *("'" + "a" * 300 + "'", "? a", "- a", "@", "%", "`", "'", '"', "[", "{", "#", ": :"),
)
AMOUNTS = (
    "2",
    "0.5",
    "500m",
    "20GB",
    "512MiB",
    "1.5s",
    "500ms",
    "1h",
    "'0.0ms'",
    f"'{'9' * 305}TB'",
    f"'{'9' * 306}h'",
    "'1 KB'",
)
FIELDS: Mapping[str, Sequence[str]] = {
    "id": ("a.b", "org.example.x-y", "'a.b\\n'", '"a.b\\n"', "a", "A.b"),
    "name": ("n", "a name"),
    "version": ("1.0.0", "'1.2.3-rc.1'", '"1.0.0\\n"', "1.10"),
    "chain": ("dev", "bitcoin", '"dev\\n"'),
    "network": (
        "{allow: ['*.a.org:443', '[::1]:*'], listen: ['127.0.0.1:0']}",
        "{allow: ['10.0.0.1/8:1-2']}",
        "{allow: [':', '::1:1', '[a]:1', '1.2:3', '*.*:1', \"\\ud800:1\"]}",
        "{listen: ['a:1'], allow: x}",
    ),
    "capabilities": (
        "[]",
        "[block_stream]",
        "[block_stream, submit_tx, rpc_proxy, archive_indexer]",
        "[block_stream, block_stream]",
    ),
    "binary": ("x.so", "./x", "/x", "../x", "a/../b", "oci:a:b", '"a\\0"', "a/.."),
    "runMode": ("native", "grpc"),
    "resources": tuple(f"{{cpu: {a}, memory: {b}, storage: {a}}}" for a, b in itertools.pairwise(AMOUNTS)),
    "security": ("{}", "{sandbox: false}", "{seccomp_profile: strict, read_paths: [a, b]}", "{read_paths: [a, a]}"),
    "signature": ("'sha256:00'",),
    "heartbeat": AMOUNTS,
    "restart": ("never", "on-failure", "always"),
    "notes": ("text", "|\n  two\n  lines\n"),
    "other": ("1",),
}
CONFIGURATION_FIELDS: Mapping[str, Sequence[str]] = {
    "store": ("a.db", "/a.db", "''"),
    "plugins": (
        "[]",
        "[{path: a}]",
        "[{path: a, config: {x: 1, y: true, z: text}}]",
        "[{path: a, name: b, ring: 1MiB}]",
        "[{path: a}, {path: a}]",
        "[{path: a, chain: b, network: c, mode: follow, final_depth: 5}]",
    ),
    "policy": ("dev", "permissive", "strict"),
    "store_limit": AMOUNTS,
    "ring": ("1MiB", "64KiB", "65536B", "3", "1TB"),
    "deadlines": tuple(f"{{start: {amount}, stop: {amount}}}" for amount in AMOUNTS),
    "chains": ("{a: {mode: longest}}", "{a: {final_depth: 3}}"),
    "other": ("1",),
}
REQUIRED = ("id", "name", "version", "chain", "capabilities", "binary", "store", "plugins")


def document(fields: Mapping[str, Sequence[str]], data: bytes) -> bytes:
    """The document that these bytes stand for."""
    names = list(fields)
    # The fields without which there is nothing to look at come first, unless a byte says otherwise.
    chosen = {name: fields[name][0] for name in REQUIRED if name in fields} if data[:1] < b"\xc0" else {}
    for at in range(1, len(data) - 1, 2):
        name = names[data[at] % len(names)]
        values = fields[name] if data[at] < 128 else ANY
        chosen[name] = values[data[at + 1] % len(values)]
    return "\n".join(f"{name}: {value}" for name, value in chosen.items()).encode()
