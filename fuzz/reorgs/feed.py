"""Inputs of one chain: what its plugins say, and the same as a line of a vector file."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fuzz.reorgs.choices import Choices
from supervm_rt.chain.types import Candidate
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.translator import BlockRefused, RawBlock, TranslatedBlock
from supervm_rt.model.chain import Rejection
from supervm_rt.store import BlockInput, Input, RefusedInput
from tests.ir import blocks as bitcoin

T = TypeVar("T")

REGTEST = BitcoinTranslator("regtest")
WORK = 2
"""Of a regtest block."""
REACH = 6
"""From how many of the newest blocks a parent is mostly taken: how deep the usual reorg is."""
LONGEST_BRANCH = 64
"""Blocks of a branch that is sent at once."""


@dataclass(frozen=True)
class Said:
    """One input and what the model is told of it; no candidate: the bytes are refused, with this reason."""

    input: Input
    candidate: Candidate | None = None
    raw: bytes = b""
    ir: bytes = b""
    reason: str = ""
    line: dict[str, Any] | None = None


class OpaqueFeed:
    """Blocks that are ids without content, heights and weights as they like."""

    def __init__(self, *, holes: bool, claims: bool) -> None:
        self.holes = holes
        self.claims = claims
        self.minted: list[Candidate] = []
        self.by_hash: dict[bytes, Candidate] = {}
        self.heights: dict[bytes, int] = {}
        self.withheld: list[Candidate] = []
        self._numbers = itertools.count(1)

    def block(self, choices: Choices, connected: list[bytes]) -> Said:
        """The next block: new, withheld before, sent before, or wrong. ``connected``: those that others can build upon."""
        if choices.seldom(4) and self.withheld:
            return self._say(self.withheld.pop(choices.number(len(self.withheld))), choices)
        if choices.seldom(8) and self.minted:
            return self._say(self._spoilt(choices.late(self.minted, 8), choices), choices)
        parent = self.by_hash.get(choices.late(connected, REACH)) if connected and not choices.seldom() else None
        candidate = self._mint(choices, parent)
        if choices.seldom(5):
            self.withheld.append(candidate)
            candidate = self._mint(choices, candidate)
        return self._say(candidate, choices)

    def branch(self, choices: Choices, canonical: list[bytes]) -> list[Said]:
        """New blocks in a row, forked off from far below the tip; in disorder, some of them wait for others."""
        depth, length = _branch_size(choices, len(canonical))
        order, weight = choices.number(4), choices.pick((None, None, 1, 2))
        parent = self.by_hash.get(canonical[-1 - depth]) if canonical else None
        candidates = []
        for _ in range(length):
            parent = self._mint(choices, parent, weight)
            candidates.append(parent)
        return [self._say(candidate, choices) for candidate in _disordered(candidates, order)]

    def _mint(self, choices: Choices, parent: Candidate | None = None, weight: int | None = None) -> Candidate:
        name = f"b{next(self._numbers):06}".encode()  # of one length, as a plugin has to list them
        if parent is None and self.minted:
            parent = choices.late(self.minted, REACH)
        above = 1 + (choices.number(3) if self.holes else 0)
        height = 5 if parent is None else self.heights[parent.hash] + above
        told: int | None = height
        if parent is not None and not self.holes and choices.seldom(4):
            told = None
        candidate = Candidate(
            hash=name,
            parent=parent.hash if parent else b"before",
            height=told,
            weight=weight or (choices.pick((1, 1, 1, 2, 3, 0)) if not choices.seldom(50) else 2**256),
            final_height=max(height + 3 - choices.number(11), 0) if self.claims and choices.seldom(10) else None,
        )
        self.minted.append(candidate)
        self.by_hash[name] = candidate
        self.heights[name] = height
        return candidate

    def _spoilt(self, candidate: Candidate, choices: Choices) -> Candidate:
        """Sent again, as it was or changed."""
        height = self.heights[candidate.hash]
        changes: tuple[dict[str, Any], ...] = (
            {},
            {"content": b"other"},
            {"parent": b"elsewhere"},
            {"weight": candidate.weight + 1},
            {"height": height + 1},
            {"height": max(height - 1, 0)},
            {"parent": candidate.hash},
            {"weight": 2**256 + 1},
            {"final_height": height},
        )
        change = choices.pick(changes)
        if change.get("height") is not None and choices.seldom(2):
            change = {**change, "hash": f"h{next(self._numbers):06}".encode()}
        return replace(candidate, **change)

    def _say(self, candidate: Candidate, choices: Choices) -> Said:
        raw, ir = b"raw of " + candidate.hash, b"ir of " + candidate.hash
        block = TranslatedBlock(
            hash=candidate.hash,
            parent=candidate.parent,
            weight=candidate.weight,
            time=1,
            root_height=None,
            height=candidate.height,
            transaction_ids=hashlib.sha256(candidate.hash).digest() * choices.number(3),
            ir=ir,
            content=candidate.content,
        )
        return Said(BlockInput(block, raw, final_height=candidate.final_height), candidate, raw, ir, line=_line(candidate))


class BitcoinFeed:
    """Real blocks of regtest, with their mutated twins: other bytes under the same header."""

    def __init__(self) -> None:
        self.minted: list[tuple[bytes, bitcoin.Block]] = [(bitcoin.GENESIS_HASH[::-1], bitcoin.Block(()))]
        self.withheld: list[bitcoin.Block] = []
        self._numbers = itertools.count(1)

    def block(self, choices: Choices, connected: list[bytes]) -> Said:
        """The next block: new, withheld, sent before, or a twin of one of these. ``connected``: as the other feed's."""
        if choices.seldom(4) and self.withheld:
            block = self.withheld.pop(choices.number(len(self.withheld)))
        elif choices.seldom(6) and len(self.minted) > 1:
            block = choices.late(self.minted[1:], 8)[1]
        else:
            parent = choices.late(connected, REACH)[::-1] if connected and not choices.seldom() else None
            block = self._mint(choices, parent)
            if choices.seldom(6):
                self.withheld.append(block)
        transactions = block.transactions
        if choices.seldom(4):
            # An odd number of leaves is filled up with the last one, so a list that repeats it has the same root.
            block = replace(block, body=_body((*transactions, transactions[-1])))
        elif choices.seldom(8):
            block = replace(block, body=_body((*transactions[:-1], bitcoin.spend(next(self._numbers)))))
        return _translate(block.raw())

    def branch(self, choices: Choices, canonical: list[bytes]) -> list[Said]:
        """As the other feed's."""
        depth, length = _branch_size(choices, len(canonical))
        order = choices.number(4)
        parent = canonical[-1 - depth][::-1] if canonical else self.minted[0][0]
        blocks = []
        for _ in range(length):
            blocks.append(self._mint(choices, parent))
            parent = self.minted[-1][0]
        return [_translate(block.raw()) for block in _disordered(blocks, order)]

    def _mint(self, choices: Choices, parent: bytes | None = None) -> bitcoin.Block:
        parent = parent or choices.late(self.minted, REACH)[0]
        number = next(self._numbers)
        script = b"\x04" + number.to_bytes(4, "little")
        block = bitcoin.Block(
            (bitcoin.coinbase(script), bitcoin.spend(2 * number), bitcoin.spend(2 * number + 1)),
            previous=parent,
            time=1_700_000_000 + number,
        )
        self.minted.append((bitcoin.sha256d(block.header()), block))
        return block


def _branch_size(choices: Choices, available: int) -> tuple[int, int]:
    """How far below the tip it begins, and how many blocks it has: one more than it undoes, as many, many, one less."""
    depth = choices.number(max(min(available, LONGEST_BRANCH), 1))
    return depth, max(choices.pick((depth + 1, depth, LONGEST_BRANCH, depth - 1)), 1)


def _disordered(blocks: list[T], order: int) -> list[T]:
    """From below up, mostly; or the first one last; or from the tip down."""
    return {2: blocks[1:] + blocks[:1], 3: blocks[::-1]}.get(order, blocks)


def _body(transactions: tuple[bitcoin.Transaction, ...]) -> bytes:
    return bitcoin.compact(len(transactions)) + b"".join(transaction.raw() for transaction in transactions)


def _translate(raw: bytes) -> Said:
    try:
        block = REGTEST.translate(RawBlock(raw))
    except BlockRefused as refusal:
        refused = RefusedInput(Rejection(refusal.hash, refusal.reason, refusal.detail))
        return Said(refused, raw=raw, reason=str(refusal.reason))
    candidate = Candidate(block.hash, block.parent, None, WORK)
    return Said(BlockInput(block, raw), candidate, raw, block.ir, line=_line(candidate, hexadecimal=True))


def genesis() -> Said:
    """The block that the mirror puts in front where its child comes first."""
    assert REGTEST.genesis is not None
    said = _translate(REGTEST.genesis)
    assert said.candidate is not None
    candidate = replace(said.candidate, height=0)
    return replace(said, candidate=candidate, line=_line(candidate, hexadecimal=True))


def _line(candidate: Candidate, *, hexadecimal: bool = False) -> dict[str, Any]:
    def text(id_: bytes) -> str:
        return id_.hex() if hexadecimal else id_.decode()

    line: dict[str, Any] = {"hash": text(candidate.hash), "parent": text(candidate.parent), "weight": candidate.weight}
    if candidate.height is not None:
        line["height"] = candidate.height
    if candidate.final_height is not None:
        line["final_height"] = candidate.final_height
    if candidate.content:
        line["content"] = candidate.content.decode()
    return line
