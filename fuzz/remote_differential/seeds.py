"""Messages of every kind, sound and not, as first inputs of the campaigns against the decoder."""

from __future__ import annotations

from typing import Any

from fuzz.remote_differential.reference import BlockMessage

HASH, PARENT = bytes(range(32)), bytes(range(32, 64))


def _messages() -> dict[str, Any]:
    block = BlockMessage(chain="bitcoin", height=5, block_bytes=b"raw", hash=HASH, parent=PARENT, position=b"0:99")
    full = BlockMessage(final_height=3, weight=b"\x01\x02", block_ir_json='{"a":"\u00fc"}', cursor="c\u20ac\U0001f600")
    full.MergeFrom(block)
    full.timestamp.seconds, full.timestamp.nanos = 1_700_000_000, 5
    full.block_ir.family = "bitcoin"
    full.block_ir.transactions.add().outputs.add(address="bc1", amount="5")
    full.block_ir.bitcoin.bits = 5
    found: dict[str, Any] = {"empty": BlockMessage(), "block": block, "full": full}
    found["reorg"] = reorg = BlockMessage(position=b"p")
    reorg.reorg.chain, reorg.reorg.from_height, reorg.reorg.to_height = "bitcoin", 9, 7
    reorg.reorg.orphan_block_hashes.extend([HASH, PARENT])
    found["finalized"] = finalized = BlockMessage()
    finalized.finalized.height, finalized.finalized.hash = 4, HASH
    found["end"] = end = BlockMessage()
    end.end_of_input.SetInParent()
    found["batch"] = batch = BlockMessage(chain="bitcoin")
    batch.batch.blocks.extend([block, reorg, finalized, end, full, block])
    others: dict[str, dict[str, Any]] = {
        "log": {"level": 2, "text": "t\u00fc"},
        "metric": {"name": "m", "value": 0.5},
        "beat": {},
        "submit": {"chain": "bitcoin", "tx": b"tx", "id": 3},
        "submitted": {"accepted": True, "tx_hash": "00", "error": "e", "id": 3, "status": -5},
        "shutdown": {"reason": -1},
        "acknowledge": {"position": b"p"},
        "credit": {"bytes": 9},
        "stop": {"reason": "r"},
        "rpc_request": {"id": 1, "method": "m", "params_json": "[]"},
        "archive_request": {"id": 1, "from_height": 3, "to_height": 9},
        "cancel": {"id": 1},
    }
    for name, values in others.items():
        found[name] = message = BlockMessage()
        getattr(message, name).SetInParent()
        for field, value in values.items():
            setattr(getattr(message, name), field, value)
    found["rpc_answer"] = answer = BlockMessage()
    answer.rpc_answer.error.message = "no"
    found["archive_answer"] = archive = BlockMessage()
    archive.archive_answer.blocks.extend([block])
    archive.archive_answer.error = "e"
    return found


def seeds() -> dict[str, bytes]:
    """Encoded messages, by name."""
    found = {name: message.SerializeToString() for name, message in _messages().items()}
    found["genesis"] = BlockMessage(genesis=True, block_bytes=b"first", hash=HASH).SerializeToString()
    found["no-genesis"] = BlockMessage(genesis=True, height=3).SerializeToString()
    found["no-hash"] = BlockMessage(hash=bytes(65)).SerializeToString()
    found["merged"] = found["reorg"] + found["reorg"]
    found["replaced"] = found["reorg"] + found["log"] + found["finalized"]
    found["said-again"] = found["reorg"] + found["log"] + b"\xa2\x01\x02\x18\x00"
    found["replaced-batch"] = found["batch"] + found["end"]
    found["batches"] = found["batch"] + found["batch"]
    found["group"] = b"\xfb\x07\x08\x01\xfb\x07\xfc\x07\xfc\x07" + found["block"]
    found["unknown"] = b"\xf8\x07\x05\xf9\x0712345678\xfd\x07abcd\xfa\x07\x02ab" + found["block"]
    found["other-types"] = b"\x08\x05\x12\x01a\x18\x03\xa0\x01\x07" + found["block"]
    found["long-varints"] = b"\x90\x80\x00\x85\x80\x80\x80\x80\x80\x80\x80\x80\x00\x9a\x80\x80\x00\x82\x80\x80\x80\x00ab"
    return found
