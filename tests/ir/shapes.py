"""The published shapes of the IR's JSON (draft-07)."""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
TEXT_OR_NULL = {"type": ["string", "null"]}

BLOCK: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["chainId", "height", "blockHash", "parentHash", "timestamp"],
    "properties": {
        "chainId": TEXT,
        "height": {"type": "integer"},
        "blockHash": TEXT,
        "parentHash": TEXT,
        "timestamp": {"type": "integer"},
        "txCount": {"type": "integer"},
    },
}

TRANSACTION: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["chainId", "txHash", "timestamp", "type"],
    "properties": {
        "chainId": TEXT,
        "txHash": TEXT,
        "timestamp": {"type": "integer"},
        "type": {"enum": ["NATIVE", "ERC20", "UTXO"]},
        "from": TEXT_OR_NULL,
        "to": TEXT_OR_NULL,
        "contract": TEXT_OR_NULL,
        "value": {"type": ["string", "number", "null"]},
        "logs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"address": TEXT, "topics": {"type": "array", "items": TEXT}, "data": TEXT},
            },
        },
        "inputs": {"type": ["array", "null"], "items": {"type": "string", "pattern": "^[0-9a-f]{64}:[0-9]+$"}},
        "outputs": {
            "type": ["array", "null"],
            "items": {"type": "object", "required": ["address", "amount"], "properties": {"address": TEXT, "amount": TEXT}},
        },
    },
}
