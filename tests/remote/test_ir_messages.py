"""The IR that subscribers get as a message, read with Google's protobuf, says what the store has (clause R2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import supervm_rt
from fuzz.remote_differential.reference import BlockMessage
from supervm_rt import PolicyLevel, RuntimeConfig, Store
from supervm_rt.cli.demo import SAMPLE_CHAIN
from supervm_rt.ir.render import block_json, transaction_json
from supervm_rt.transports.remote.addresses import UnixAddress
from tests.remote.messages import field
from tests.remote.support import Answer, peer, short_folder
from tests.remote.test_streaming import block_id, told
from tests.transports.kinds import KINDS, SECONDS, configuration

AS_MESSAGE = field(6, 2)
ONCE = field(10, 1)
IN_BATCHES = field(11, 50)
WITHOUT_BLOCKS = field(5, 1)


def said(answer: Answer) -> Iterator[Any]:
    """The events, as Google's protobuf reads them."""
    for message in answer.messages:
        event = BlockMessage.FromString(message)
        yield from event.batch.blocks if event.HasField("batch") else [event]


def as_block_json(block: Any) -> dict[str, object]:
    header = block.bitcoin
    return {
        "chainId": block.chain,
        "height": block.height,
        "blockHash": block.hash.hex(),
        "parentHash": block.parent.hex(),
        "timestamp": block.timestamp,
        "txCount": block.transaction_count,
        "version": header.version,
        "merkleRoot": header.merkle_root.hex(),
        "bits": f"{header.bits:08x}",
        "nonce": header.nonce,
        "size": header.size,
        "strippedSize": header.stripped_size,
        "weight": header.weight,
        "transactions": [transaction.hash.hex() for transaction in block.transactions],
    }


def as_transaction_json(transaction: Any) -> dict[str, object]:
    """What the message says of the shape TxIR; the rest is worked out of it."""
    kinds = transaction.DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number
    return {
        "txHash": transaction.hash.hex(),
        "witnessHash": (transaction.witness_hash or transaction.hash).hex(),
        "type": kinds[transaction.kind].name.removeprefix("TRANSACTION_KIND_"),
        "coinbase": transaction.coinbase,
        "position": transaction.position,
        "version": transaction.version,
        "lockTime": transaction.lock_time,
        "size": transaction.size,
        "weight": transaction.weight,
        "inputDetails": [
            ({"coinbase": spent.script.hex()} if transaction.coinbase else as_outpoint(spent))
            | {"sequence": spent.sequence, "witness": [item.hex() for item in spent.witness]}
            for spent in transaction.inputs
        ],
        "outputs": [(output.address, output.amount, output.script.hex()) for output in transaction.outputs],
    }


def as_outpoint(spent: Any) -> dict[str, object]:
    return {"txHash": spent.previous_hash.hex(), "index": spent.previous_index, "script": spent.script.hex()}


@pytest.mark.parametrize("more", [b"", IN_BATCHES + WITHOUT_BLOCKS])
def test_it_says_what_the_store_has(tmp_path: Path, more: bytes) -> None:
    answers: list[Answer] = []

    async def main() -> None:
        with short_folder() as short:
            address = UnixAddress(short / "socket")
            config = configuration(KINDS["in process"], tmp_path / "store.db", SAMPLE_CHAIN / "blocks", listen=(address,))
            async with supervm_rt.open_runtime(config) as runtime:
                with trio.fail_after(SECONDS):
                    await runtime.wait_idle()
                async with peer(address.path) as raw:
                    answers.append(await raw.call("StreamBlocks", AS_MESSAGE + ONCE + more))

    async def later() -> None:
        """Nothing feeds the chain any more."""
        with short_folder() as short:
            address = UnixAddress(short / "socket")
            config = RuntimeConfig(store=tmp_path / "store.db", policy=PolicyLevel.DEV, plugins=(), listen=(address,))
            async with supervm_rt.open_runtime(config), peer(address.path) as raw:
                answers.append(await raw.call("StreamBlocks", AS_MESSAGE + ONCE + more + field(3, "bitcoin")))

    trio.run(main)
    trio.run(later)
    answer, again = answers
    assert [event.block_ir for event in said(again)] == [event.block_ir for event in said(answer)]
    assert answer.status == 0, answer
    events = list(said(answer))
    witnesses = addresses = 0
    with Store.open(tmp_path / "store.db", read_only=True) as store:
        chain = store.chain("bitcoin")
        tip = chain.tip()
        assert tip is not None
        assert len(events) > tip.height
        for event in events:
            assert event.block_ir_json == ""
            assert bool(event.block_bytes) == (more == b"")
            block = event.block_ir
            assert (block.family, block.hash) == ("bitcoin", event.hash)
            stored = chain.block_by_hash(block.hash)
            assert stored is not None
            ir = chain.decoded(stored)
            assert as_block_json(block) == block_json(ir, chain="bitcoin", height=event.height)
            for mine, theirs in zip(ir.transactions, block.transactions, strict=True):
                expected = transaction_json(mine, chain="bitcoin", network="regtest", timestamp=ir.time)
                outputs = [(each["address"], each["amount"], each["script"]) for each in expected["outputs"]]  # type: ignore[attr-defined]
                found = as_transaction_json(theirs)
                assert found == {name: expected[name] for name in found} | {"outputs": outputs}
                assert theirs.offset == mine.offset
                assert [(each.previous_hash, each.previous_index) for each in theirs.inputs] == [
                    (each.previous_id, each.previous_index) for each in mine.inputs
                ]
                witnesses += any(each.witness for each in theirs.inputs)
                addresses += sum(bool(each.address) for each in theirs.outputs)
    assert witnesses
    assert addresses


def test_a_family_without_transactions(tmp_path: Path) -> None:
    async def main() -> None:
        async with told(tmp_path, "", "a") as (_, _host, raw):
            answer = await raw.call("StreamBlocks", AS_MESSAGE + ONCE)
            assert answer.status == 0, answer
            block = list(said(answer))[1].block_ir
            assert (block.chain, block.family, block.height) == ("dev", "dev", 2)
            assert (block.hash, block.parent, block.transaction_count) == (block_id("a"), block_id(""), 0)
            assert not block.transactions
            assert block.WhichOneof("header") is None

    trio.run(main)
