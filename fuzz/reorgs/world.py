"""Invariant: whatever plugins say, in whatever batches, across any closing and reopening, a store holds what the plain model
holds: the same verdicts, canonical chain, event log, states, positions and digest, for each of its chains; and consumers that
come, lag, crash and go on are told exactly that log, whether they read by themselves or follow one feed that commits wake.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fuzz.reorgs.choices import Choices
from fuzz.reorgs.expected import Expected
from fuzz.reorgs.feed import REGTEST, WORK, BitcoinFeed, OpaqueFeed, Said, genesis
from fuzz.reorgs.followers import Followers
from fuzz.reorgs.situations import Situations
from fuzz.reorgs.subscribers import Consumers
from supervm_rt.chain.tracker import MAX_WEIGHT
from supervm_rt.chain.types import ForkRules
from supervm_rt.ir.dev import DevTranslator
from supervm_rt.ir.translator import Translator
from supervm_rt.model.chain import ForkMode, Reason
from supervm_rt.store import Applied, FinalInput, Mirror, RefusedInput, ReorgInput, Store, digest
from tests.chain.model import Answer

MODES = (ForkMode.HEAVIEST, ForkMode.FOLLOW, ForkMode.LONGEST)
FINAL_DEPTHS = (None, 3, 0, 1, 10, 40, 100)
ORPHAN_LIMITS = (20, 3, 1, 0)
PACES = ((12, True), (60, False), (0, False))
"""How soon plugins call blocks final: from how many of the newest one is taken (0: never), and whether blocks claim it too."""
PLUGINS = ("org.example.first", "org.example.second")
MEMORY = Path("/dev/shm")


class Divergence(AssertionError):
    """The store and the model differ."""


@dataclass
class Chain:
    """One chain: its feed, its model, and what was said and not yet applied."""

    name: str
    translator: Translator
    expected: Expected
    feed: OpaqueFeed | BitcoinFeed
    mirror: Mirror | None = None
    final_reach: int = 12
    plugins: tuple[str, ...] = PLUGINS
    plugin: str = PLUGINS[0]
    pending: list[Said] = field(default_factory=list)
    said: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)
    """The story so far, as a vector file tells it."""


class World:
    """One store with three chains, one of them of real Bitcoin blocks."""

    def __init__(self, setup: bytes) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="supervm-reorgs-", dir=MEMORY if MEMORY.is_dir() else None))
        self._path = self._folder / "world.store"
        choices = Choices(setup)
        self.chains = self._make_chains(choices)
        self.situations = Situations()
        for mode in {chain.expected.rules.mode for chain in self.chains}:
            self.situations.counts[f"worlds with a chain of mode {mode}"] += 1
        self._opened = 0
        self._consumers = Consumers()
        self._followers = Followers()
        self._store = self._open()

    def _make_chains(self, choices: Choices) -> list[Chain]:
        return [_opaque("one", choices), _opaque("two", choices), _bitcoin(choices)]

    def close(self) -> None:
        """Removes the store."""
        self._followers.close()
        self._store.close()
        shutil.rmtree(self._folder)

    def _open(self) -> Store:
        store = Store.open(self._path, durable=False)
        for chain in self.chains:
            chain.mirror = store.mirror(chain.name, translator=chain.translator, rules=chain.expected.rules)
        return store

    # ---- the steps -----------------------------------------------------------------------------------------------------------

    def block(self, choices: Choices) -> None:
        """A plugin sends a block."""
        chain = self._chain(choices)
        self._say(chain, chain.feed.block(choices, list(chain.expected.model.blocks)), choices)

    def branch(self, choices: Choices) -> None:
        """A plugin sends a whole branch."""
        chain = self._chain(choices)
        self._flush(chain)
        for said in chain.feed.branch(choices, chain.expected.model.canonical):
            self._say(chain, said, choices, at_once=False)

    def final(self, choices: Choices) -> None:
        """A plugin says that a block is final."""
        chain = self._chain(choices)
        self._flush(chain)
        model = chain.expected.model
        if not model.canonical or not chain.final_reach:
            return
        hash_ = model.canonical[-1 - choices.number(min(len(model.canonical), chain.final_reach))]
        height = model.height[hash_]
        if choices.seldom(5):
            hash_ = choices.late(list(chain.expected.arrived), 8)
        if choices.seldom(8):
            height = max(height - 1 + choices.number(3), 0)
        line = {"final": {"hash": self._text(chain, hash_), "height": height}}
        self._say(chain, Said(FinalInput(hash_, height), line=line), choices)

    def reorg(self, choices: Choices) -> None:
        """A plugin announces a reorg, rightly or not."""
        chain = self._chain(choices)
        self._flush(chain)
        model = chain.expected.model
        if not model.canonical:
            return
        count = choices.number(min(len(model.canonical), 9))
        orphans = model.canonical[len(model.canonical) - count :][::-1]
        from_height = model.height[model.canonical[-1]]
        to_height = model.height[model.canonical[-1 - count]]
        wrong = choices.number(16)
        if wrong == 12:
            orphans = orphans[1:]
        elif wrong == 13:
            orphans = orphans[:1] + orphans
        elif wrong == 14:
            from_height += 1
        elif wrong == 15 and to_height > 0:
            to_height -= 1
        statement = {
            "from_height": from_height,
            "to_height": to_height,
            "orphans": [self._text(chain, hash_) for hash_ in orphans],
        }
        self._say(chain, Said(ReorgInput(from_height, to_height, tuple(orphans)), line={"reorg": statement}), choices)

    def other_plugin(self, choices: Choices) -> None:
        """Another plugin goes on with the same chain."""
        chain = self._chain(choices)
        self._flush(chain)
        plugin = choices.pick(chain.plugins)
        self.situations.counts["changes of plugin"] += plugin != chain.plugin
        chain.plugin = plugin

    def reopen(self, choices: Choices) -> None:
        """The store is closed, or its process is killed; with batches under way that are lost; and it is opened again."""
        how = choices.pick(("clean reopenings", "reopenings that lost batches", "crashes"))
        for chain in self.chains:
            if how == "clean reopenings":
                self._flush(chain)
            if how == "crashes" or chain.pending or how == "clean reopenings":
                self.situations.counts[how] += 1
            chain.pending.clear()
            chain.lines.append({"restart": True})
        self._followers.close_feed(self._expected())
        if how == "crashes":
            self._crash()
        else:
            self._store.close()
            self._store = self._open()
        for chain in self.chains:
            self._compare_chain(chain)
        self._consumers.reopened(self._store)
        self._followers.open_feed(self._path)

    def consume(self, choices: Choices) -> None:
        """A consumer comes, goes, or reads some events: one that reads by itself, or one of those that follow the feed."""
        if choices.number(2):
            what = self._followers.step(self._path, self._expected(), choices)
            self.situations.counts[f"followers that {what}"] += 1
        else:
            self._consumers.step(self._store, self._expected(), choices)

    def _expected(self) -> dict[str, Expected]:
        return {chain.name: chain.expected for chain in self.chains}

    def _crash(self) -> None:
        """Goes on with a copy of the files as they lie there: what a process that was killed leaves behind."""
        killed, path = self._store, self._path
        self._opened += 1
        self._path = self._folder / f"world-{self._opened}.store"
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{self._path}{suffix}")
        self._store = self._open()
        killed.close()
        path.unlink()

    def compare(self, choices: Choices) -> None:
        """Everything is applied, and all of it compared."""
        for chain in self.chains:
            self._flush(chain)
            self._compare_chain(chain)
            same(chain, "digest", digest(self._store, chain.name).hex, chain.expected.digest())
            self.situations.counts["digests compared"] += 1
        self._consumers.compare(self._store, self._expected())
        self.situations.counts["followers that were told all"] += self._followers.compare(self._expected())
        self._delete_old(choices)

    def _delete_old(self, choices: Choices) -> None:
        """In a copy, of which consumers go on with their cursors, old events are deleted."""
        copy = self._folder / "pruned.store"
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{self._path}{suffix}", f"{copy}{suffix}")
        keep = choices.number(40)
        with Store.open(copy, durable=False) as store:
            back, refused = self._consumers.after_deleting(store, self._expected(), keep, keep + choices.number(80), choices)
        self.situations.counts["consumers that went on where events were deleted"] += back
        self.situations.counts["consumers that came too late"] += refused
        copy.unlink()

    # ---- saying and comparing ------------------------------------------------------------------------------------------------

    def _chain(self, choices: Choices) -> Chain:
        return choices.pick((self.chains[0], self.chains[0], self.chains[1], self.chains[2]))

    def _text(self, chain: Chain, hash_: bytes) -> str:
        return hash_.hex() if isinstance(chain.feed, BitcoinFeed) else hash_.decode()

    def _say(self, chain: Chain, said: Said, choices: Choices, *, at_once: bool = True) -> None:
        chain.said += 1
        position = self._position(chain, said, choices)
        chain.pending.append(replace(said, input=replace(said.input, position=position)))
        if (choices.number(4) == 0 and at_once) or len(chain.pending) >= 12:
            self._flush(chain)

    def _position(self, chain: Chain, said: Said, choices: Choices) -> bytes:
        """What the plugin says that its position is behind this; empty: nothing."""
        return b"" if choices.seldom(8) else f"{chain.plugin} {chain.said}".encode()

    def _flush(self, chain: Chain) -> None:
        """Applies what is pending as one batch, and compares the answers."""
        pending, chain.pending = chain.pending, []
        if not pending:
            return
        answers = self._tell_model(chain, pending)
        assert chain.mirror is not None
        applied = chain.mirror.apply(chain.plugin, [said.input for said in pending])
        self._followers.committed(sum(len(one.events) for one in applied))
        for one, answer in zip(applied, answers, strict=True):
            self._compare_answer(chain, one, answer)
        same(chain, "tip", chain.mirror.tip, chain.expected.tip())
        same(chain, "final", chain.mirror.final, chain.expected.final())

    def _tell_model(self, chain: Chain, pending: list[Said]) -> list[Answer]:
        answers = []
        for said in pending:
            begun = bool(chain.expected.model.blocks)
            answers.append(self._expect(chain.expected, said))
            self.situations.note(chain.expected, said, answers[-1])
            if said.line is not None and _can_be_told(chain.expected, said, answers[-1], begun=begun):
                chain.lines.append(said.line)
            if said.input.position:
                chain.expected.positions[chain.plugin] = said.input.position
        return answers

    def _expect(self, expected: Expected, said: Said) -> Answer:
        match said.input:
            case FinalInput(hash_, height):
                return expected.finalize(hash_, height)
            case ReorgInput(from_height, to_height, orphans):
                return expected.reorg(from_height, to_height, list(orphans))
        if said.candidate is None:
            return Answer(said.reason)
        candidate = said.candidate
        if expected.model.blocks:
            return expected.block(candidate, said.raw, said.ir)
        if expected.family != "bitcoin":
            return expected.block(candidate, said.raw, said.ir) if candidate.height is not None else Answer("height")
        first = genesis()
        assert first.candidate is not None
        if candidate.parent != first.candidate.hash:
            # Nothing tells its height: these coinbases begin with no height that could be one.
            return Answer("height")
        before = expected.block(first.candidate, first.raw, first.ir)
        after = expected.block(candidate, said.raw, said.ir)
        return Answer(after.verdict, before.events + after.events, after.connected, after.evicted, after.refused, after.cut)

    def _compare_answer(self, chain: Chain, applied: Applied, answer: Answer) -> None:
        outcome = applied.outcome
        same(chain, "verdict", str(outcome.reason or outcome.verdict), answer.verdict)
        same(chain, "events", [(str(event.step), event.block.hash) for event in outcome.events], answer.events)
        for event in outcome.events:
            same(chain, "height", event.block.height, chain.expected.model.height[event.block.hash])
        evicted = [rejection.hash for rejection in applied.rejections if rejection.reason is Reason.ORPHAN_LIMIT]
        same(chain, "evicted", evicted, answer.evicted)

    def _compare_chain(self, chain: Chain) -> None:
        expected, reader = chain.expected, self._store.chain(chain.name)
        same(chain, "tip", reader.tip(), expected.tip())
        same(chain, "final", reader.final(), expected.final())
        log = [(str(event.step), event.block.hash) for event in reader.events(limit=1_000_000)]
        same(chain, "event log", log, expected.events)
        for plugin in chain.plugins:
            same(chain, "position", self._store.position(plugin, chain.name), expected.positions.get(plugin))
        states = {hash_: expected.state(hash_) for hash_ in expected.arrived}
        stored = {hash_: reader.block_by_hash(hash_) for hash_ in expected.arrived}
        same(chain, "states", {hash_: str(block.state) for hash_, block in stored.items() if block is not None}, states)
        counts = reader.statistics()
        waiting = sum(state == "waiting" for state in states.values())
        same(chain, "blocks", (counts.blocks, counts.waiting), (len(states) - waiting, waiting))
        same(chain, "canonical", counts.canonical, len(expected.model.canonical))
        same(chain, "reorgs", (counts.reorgs, counts.deepest_reorg), (expected.reorgs, expected.deepest_reorg))

    # ---- the story as a file -------------------------------------------------------------------------------------------------

    def write_vectors(self, folder: Path) -> list[Path]:
        """One file for each chain, for ``forks replay``: what was applied, and reopenings where they were.

        Left out is what cannot be told without bytes and is refused for them: see ``_can_be_told``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for chain in self.chains:
            rules = chain.expected.rules
            setup: dict[str, Any] = {"mode": str(rules.mode), "final_depth": rules.final_depth, "orphans": rules.orphan_limit}
            if rules.holes:
                setup["holes"] = True
            lines = [_with_height(chain, line) for line in chain.lines]
            first = genesis()
            if first.candidate is not None and first.candidate.hash in chain.expected.model.blocks:
                lines = [{"hash": first.candidate.hash.hex(), "parent": "", "weight": WORK, "height": 0}, *lines]
            path = folder / f"{chain.name}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in (setup, *lines)))
            written.append(path)
        return written


def _can_be_told(expected: Expected, said: Said, answer: Answer, *, begun: bool) -> bool:
    """Whether a vector file has words for this input: it knows ids, but no bytes."""
    candidate = said.candidate
    if candidate is None:
        return not isinstance(said.input, RefusedInput)
    if not begun and answer.verdict == "height":
        return False  # nothing told its height, which a vector file must
    if expected.rules.mode is ForkMode.LONGEST and answer.verdict == "malformed":
        return 0 <= candidate.weight <= MAX_WEIGHT  # weights are not read in this mode
    known = expected.arrived.get(candidate.hash)
    return not (answer.verdict == "conflict" and known is not None and known[0].content != candidate.content)


def _with_height(chain: Chain, line: dict[str, Any]) -> dict[str, Any]:
    """A vector file states every height, also those that the chain works out."""
    if "hash" not in line or "height" in line:
        return line
    if isinstance(chain.feed, BitcoinFeed):
        hash_, guess = bytes.fromhex(line["hash"]), 0
    else:
        hash_ = line["hash"].encode()
        guess = chain.feed.heights[hash_]
    return {**line, "height": chain.expected.model.height.get(hash_, guess)}


STEPS: dict[str, Callable[[World, Choices], None]] = {
    "block": World.block,
    "branch": World.branch,
    "final": World.final,
    "reorg": World.reorg,
    "other_plugin": World.other_plugin,
    "reopen": World.reopen,
    "compare": World.compare,
    "consume": World.consume,
}
FREQUENCIES = {"block": 82, "branch": 2, "final": 5, "reorg": 5, "other_plugin": 2, "reopen": 2, "compare": 2}
"""Of what plugins say and stores go through; consumers come between (see ``CONSUME_ONCE_IN``)."""
CONSUME_ONCE_IN = 10


def _opaque(name: str, choices: Choices) -> Chain:
    holes = choices.number(4) == 3
    rules = ForkRules(choices.pick(MODES), choices.pick(FINAL_DEPTHS), choices.pick(ORPHAN_LIMITS), holes)
    reach, claims = choices.pick(PACES)
    return Chain(name, DevTranslator(), Expected("dev", "", rules), OpaqueFeed(holes=holes, claims=claims), final_reach=reach)


def _bitcoin(choices: Choices) -> Chain:
    rules = ForkRules(choices.pick(MODES), choices.pick(FINAL_DEPTHS), choices.pick(ORPHAN_LIMITS))
    reach, _ = choices.pick(PACES)
    return Chain("bitcoin", REGTEST, Expected("bitcoin", "regtest", rules), BitcoinFeed(), final_reach=reach)


def same(chain: Chain, what: str, found: object, expected: object) -> None:
    """Raises Divergence where they are not."""
    if found != expected:
        raise Divergence(f"chain {chain.name} ({chain.expected.rules}): {what} is {found!r}, expected {expected!r}")
