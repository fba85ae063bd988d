"""Invariant: as in ``target``. The campaign against the readers of manifests, configurations and what binaries say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fuzz import python
from fuzz.campaign import ROOT, main
from fuzz.manifest.documents import ANY, CONFIGURATION_FIELDS, FIELDS

MANIFEST, CONFIGURATION, SAID, MADE_MANIFEST, MADE_CONFIGURATION = range(5)


def seeds() -> dict[str, bytes]:
    """The project's own manifests, each known value in each place, and what a binary says."""
    found = {}
    for number, path in enumerate(sorted(Path(ROOT, "plugins").glob("*/plugin.yaml"))):
        found[f"manifest-{number}"] = bytes([MANIFEST]) + path.read_bytes()
    for number, value in enumerate(ANY):
        found[f"value-{number}"] = bytes([MANIFEST]) + f"a: {value}\n".encode()
        found[f"configuration-value-{number}"] = bytes([CONFIGURATION]) + f"a: {value}\n".encode()
    for kind, fields in ((MADE_MANIFEST, FIELDS), (MADE_CONFIGURATION, CONFIGURATION_FIELDS)):
        for number, values in enumerate(fields.values()):
            for place in range(len(values)):
                found[f"made-{kind}-{number}-{place}"] = bytes([kind, 0, number, place])
    said = {"id": "a.b", "name": "n", "version": "1.0.0", "chain": "dev", "capabilities": ["block_stream"]}
    found["said"] = bytes([SAID]) + json.dumps(said).encode()
    found["said-deep"] = bytes([SAID]) + b'{"capabilities": ' + b"[" * 100 + b"]" * 100 + b"}"
    return found


CAMPAIGN = python.campaign("manifest", seeds=seeds, max_length=256)

if __name__ == "__main__":
    sys.exit(main(CAMPAIGN))
