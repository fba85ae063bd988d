"""``chain``: asking a store, also while a node writes it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from supervm_rt.cli.output import add_json_option, block_ref, block_text, moment, print_fields, print_json, print_table
from supervm_rt.errors import NotInStore
from supervm_rt.ir.render import block_json, transaction_json
from supervm_rt.store import ChainReader, Store, StoredBlock, digest

_EVENTS_AT_ONCE = 1_000


def add_commands(commands: Any) -> None:
    """Adds the commands."""
    parser: argparse.ArgumentParser = commands.add_parser("chain", help="ask a store")
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def action(name: str, command: Any, summary: str, *, chain: bool = True) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, help=summary)
        if chain:
            added.add_argument("chain", metavar="CHAIN", help="the chain's name in the store")
        added.add_argument("--store", type=Path, required=True, metavar="FILE")
        add_json_option(added)
        added.set_defaults(command=command)
        return added

    action("list", _list, "the chains of a store", chain=False)
    action("tip", _tip, "the last block, and the last final one")
    block = action("block", _block, "one block")
    block.add_argument("block", metavar="HASH|HEIGHT")
    block.add_argument("--raw", action="store_true", help="its bytes, in hexadecimal")
    transaction = action("tx", _transaction, "one transaction, with its fee where the outputs that it spends are in the store")
    transaction.add_argument("id", metavar="TXID")
    events = action("events", _events, "the log of what happened to the chain, in order")
    events.add_argument("--after", type=_count, default=0, metavar="SEQ", help="only events with a higher sequence number")
    events.add_argument("--limit", type=_count, metavar="N", help="at most so many (default: all)")
    action("digest", _digest, "one hash over raw bytes, IR and events: equal for equal stores")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def _list(options: argparse.Namespace) -> int:
    with Store.open(options.store, read_only=True) as store:
        rows = []
        for info in store.chains():
            counts = store.chain(info.name).statistics()
            rows.append(
                {
                    "chain": info.name,
                    "family": info.family,
                    "network": info.network,
                    "mode": str(info.rules.mode),
                    "final_depth": info.rules.final_depth,
                    "tip": block_ref(info.tip) if options.json else block_text(info.tip),
                    "final": block_ref(info.final) if options.json else (info.final.height if info.final else "none"),
                    "blocks": counts.canonical,
                    "reorgs": counts.reorgs,
                }
            )
    if options.json:
        print_json(rows)
    else:
        print_table(rows)
    return 0


def _tip(options: argparse.Namespace) -> int:
    with Store.open(options.store, read_only=True) as store:
        info = store.chain(options.chain).info()
    if info.tip is None:
        raise NotInStore(f"chain {info.name} has no block yet", remedy="mirror a plugin into it")
    if options.json:
        print_json({"chain": info.name, "hash": info.tip.hash.hex(), "height": info.tip.height, "final": block_ref(info.final)})
    else:
        print_fields({"tip": block_text(info.tip), "final": block_text(info.final)})
    return 0


def _block(options: argparse.Namespace) -> int:
    with Store.open(options.store, read_only=True) as store:
        chain = store.chain(options.chain)
        block = chain.find_block(options.block)
        if options.raw:
            raw = chain.raw(block).hex()
            print_json({"chain": chain.name, "hash": block.hash.hex(), "raw": raw}) if options.json else print(raw)
            return 0
        answer = _block_json(chain, block)
    if options.json:
        print_json(answer)
        return 0
    transactions = answer.pop("transactions")
    answer["timestamp"] = moment(answer["timestamp"])
    print_fields(answer)
    for identifier in transactions:
        print(f"  {identifier}")
    return 0


def _block_json(chain: ChainReader, block: StoredBlock) -> dict[str, Any]:
    decoded = chain.decoded(block)
    return {
        **block_json(decoded, chain=chain.name, height=block.height if block.height is not None else -1),
        "state": str(block.state),
        "rawSize": block.size,
        "transactions": [transaction.id.hex() for transaction in decoded.transactions],
    }


def _transaction(options: argparse.Namespace) -> int:
    try:
        identifier = bytes.fromhex(options.id.removeprefix("0x"))
    except ValueError:
        raise NotInStore(f"{options.id!r} names no transaction", remedy="give the whole id in hexadecimal") from None
    with Store.open(options.store, read_only=True) as store:
        chain = store.chain(options.chain)
        found = chain.transaction(identifier)
        answer: dict[str, Any] = {
            **transaction_json(
                found.transaction,
                chain=chain.name,
                network=chain.info().network,
                timestamp=found.block.time,
                block_hash=found.block.hash,
                height=found.block.height,
                fee=chain.fee(found.transaction),
            ),
            "blockState": str(found.block.state),
        }
    if options.json:
        print_json(answer)
        return 0
    inputs, outputs = answer.pop("inputs") or [], answer.pop("outputs") or []
    answer["timestamp"] = moment(answer["timestamp"])
    print_fields({name: value for name, value in answer.items() if value is not None and not isinstance(value, list | dict)})
    for spent in inputs:
        print(f"  spends {spent}")
    for output in outputs:
        print(f"  pays   {output['amount']} to {output['address'] or output['scriptType']}")
    return 0


def _events(options: argparse.Namespace) -> int:
    after, left = options.after, options.limit
    with Store.open(options.store, read_only=True) as store:
        chain = store.chain(options.chain)
        while left is None or left > 0:
            batch = chain.events(after, _EVENTS_AT_ONCE if left is None else min(left, _EVENTS_AT_ONCE))
            for event in batch:
                if options.json:
                    print_json(
                        {
                            "sequence": event.sequence,
                            "step": str(event.step),
                            "hash": event.block.hash.hex(),
                            "height": event.block.height,
                        }
                    )
                else:
                    print(f"{event.sequence:>9}  {event.step:<5}  {event.block.height:>9}  {event.block.hash.hex()}")
            if not batch:
                break
            after = batch[-1].sequence
            left = None if left is None else left - len(batch)
    return 0


def _digest(options: argparse.Namespace) -> int:
    console = Console(stderr=True)
    with (
        Store.open(options.store, read_only=True) as store,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("reading", total=None)
        answer = digest(store, options.chain, lambda done, total: progress.update(task, completed=done, total=total))
    if options.json:
        print_json(
            {
                "chain": options.chain,
                "digest": answer.hex,
                "blocks": answer.blocks,
                "events": answer.events,
                "bytes": answer.bytes,
            }
        )
    else:
        print(f"{answer.hex}  {answer.blocks} blocks, {answer.events} events, {answer.bytes} bytes")
    return 0
