"""What a mirror stores: one transaction for a batch, first blocks, orphans, positions, finality, what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from supervm_rt.chain.types import ForkRules
from supervm_rt.errors import ConfigurationError, NotInStore, StoreError
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.model.chain import BlockRef, ForkMode, Reason, Rejection, Verdict
from supervm_rt.store import (
    Applied,
    BlockState,
    EndOfInput,
    FinalInput,
    Input,
    RefusedInput,
    ReorgInput,
    Store,
    digest,
)
from tests.store.support import (
    CHAIN,
    DEV,
    HEAVIEST,
    PLUGIN,
    REGTEST,
    Frame,
    bitcoin_block,
    bitcoin_id,
    block,
    chain_of,
    coinbase,
    dev_mirror,
    events_of,
    fill,
    line,
    raw_bytes,
)

GENESIS = REGTEST.genesis_hash or b""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chain.store"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as opened:
        yield opened


def states(store: Store, names: str) -> str:
    reader = store.chain(CHAIN)
    found = [reader.block_by_hash(name.encode()) for name in names.split()]
    return " ".join("-" if one is None else str(one.state) for one in found)


def one(applied: list[Applied]) -> Applied:
    (only,) = applied
    return only


def test_a_batch_is_stored_whole(store: Store) -> None:
    mirror = dev_mirror(store)
    applied = mirror.apply(PLUGIN, [*line("a b c", "x", 7), *line("d e f", "a", 8), EndOfInput(b"end")])
    assert [one.verdict for one in applied] == [Verdict.ACCEPTED] * 7
    assert events_of(applied) == [
        ("new", "a"),
        ("new", "b"),
        ("new", "c"),
        ("undo", "c"),
        ("undo", "b"),
        ("new", "d"),
        ("new", "e"),
        ("new", "f"),
    ]
    reader = store.chain(CHAIN)
    assert mirror.tip == reader.tip() == BlockRef(b"f", 10)
    assert [(str(event.step), event.block.hash.decode()) for event in reader.events()] == events_of(applied)
    assert [event.sequence for event in reader.events()] == list(range(1, 9))
    assert states(store, "a b c d e f") == "canonical side side canonical canonical canonical"
    found = reader.find_block("10")
    assert reader.raw(found) == raw_bytes("f")
    assert reader.ir(found) == b"ir of f"
    assert (found.parent, found.weight, found.transactions, found.size) == (b"e", 1, 1, 100)
    assert mirror.position(PLUGIN) == store.position(PLUGIN, CHAIN) == b"end"
    counts = reader.statistics()
    assert (counts.blocks, counts.canonical, counts.transactions, counts.events) == (6, 4, 4, 8)
    assert (counts.reorgs, counts.deepest_reorg, counts.bytes, counts.waiting) == (1, 2, 600, 0)


def test_what_is_acknowledged_has_reached_the_disk(store: Store) -> None:
    """SQLite waits for the disk at each commit (FULL), not only at each checkpoint."""
    with store.transaction() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_transaction_that_fails_after_it_wrote_leaves_nothing(store: Store) -> None:
    columns, row = "name, family, network, mode, holes, orphan_limit", ("half", "dev", "", "heaviest", 0, 5)

    def write_and_fail() -> None:
        with store.transaction() as connection:
            connection.execute(f"INSERT INTO chains ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert store.chains() == []


def test_a_batch_that_fails_leaves_nothing_and_breaks_the_mirror(store: Store, path: Path) -> None:
    mirror = dev_mirror(store)
    mirror.apply(PLUGIN, line("a b", "x", 0))
    before = digest(store, CHAIN)

    class Explosion(Exception):
        pass

    class Exploding(bytes):
        def __len__(self) -> int:
            raise Explosion

    bad = block("d", "c", 3)
    bad = replace(bad, translated=replace(bad.translated, ir=Exploding(b"x")))
    with pytest.raises(Explosion):
        mirror.apply(PLUGIN, [*line("c", "b", 2), bad])
    assert mirror.broken
    assert digest(store, CHAIN) == before
    assert store.position(PLUGIN, CHAIN) == b"b"
    with pytest.raises(StoreError, match=r"can no longer be used.*open it again"):
        mirror.apply(PLUGIN, line("c", "b", 2))
    again = dev_mirror(store)
    assert again.tip == BlockRef(b"b", 1)
    assert events_of(again.apply(PLUGIN, line("c d", "b", 2))) == [("new", "c"), ("new", "d")]


def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert dev_mirror(store).apply(PLUGIN, []) == []


def test_a_chain_has_one_mirror_at_a_time(store: Store) -> None:
    first = dev_mirror(store)
    second = dev_mirror(store)
    with pytest.raises(StoreError, match="opened again"):
        first.apply(PLUGIN, line("a", "x", 0))
    second.apply(PLUGIN, line("a", "x", 0))
    store.close()
    with pytest.raises(StoreError, match="closed"):
        second.apply(PLUGIN, line("b", "a", 1))


def test_a_refused_reopening_leaves_the_living_mirror_alone(store: Store) -> None:
    mirror = dev_mirror(store)
    mirror.apply(PLUGIN, line("a", "x", 0))
    with pytest.raises(ConfigurationError):
        dev_mirror(store, replace(HEAVIEST, mode=ForkMode.FOLLOW))
    assert not mirror.broken


def test_a_chain_without_a_block_can_become_another(store: Store) -> None:
    dev_mirror(store)
    mirror = dev_mirror(store, replace(HEAVIEST, mode=ForkMode.FOLLOW))
    mirror.apply(PLUGIN, line("a", "x", 0))
    assert store.chains()[0].rules.mode is ForkMode.FOLLOW


@pytest.mark.parametrize(
    ("rules", "network", "told"),
    [
        (replace(HEAVIEST, mode=ForkMode.LONGEST), "regtest", "longest"),
        (replace(HEAVIEST, holes=True), "regtest", "holes"),
        (HEAVIEST, "main", "bitcoin main"),
        (HEAVIEST, None, "dev"),
    ],
)
def test_another_chain_under_the_same_name_is_refused(store: Store, rules: ForkRules, network: str | None, told: str) -> None:
    store.mirror("btc", translator=REGTEST, rules=HEAVIEST).apply(PLUGIN, [bitcoin_block(GENESIS, [coinbase(1, 50)])])
    translator = DEV if network is None else BitcoinTranslator(network)
    with pytest.raises(ConfigurationError) as caught:
        store.mirror("btc", translator=translator, rules=rules)
    assert "bitcoin regtest in mode heaviest" in str(caught.value)
    assert told in str(caught.value)
    assert "chain name of its own" in caught.value.remedy
    assert store.chain("btc").info().rules == HEAVIEST


def test_changed_depth_and_orphan_limit_are_taken_over(store: Store) -> None:
    dev_mirror(store).apply(PLUGIN, [*line("a b c d", "x", 0), *line("z2", "z1", 9), *line("y2", "y1", 9)])
    rules = replace(HEAVIEST, final_depth=1, orphan_limit=1)
    applied = dev_mirror(store, rules).apply(PLUGIN, [*line("e", "d", 4), *line("w2", "w1", 9)])
    assert events_of(applied) == [("new", "e"), ("final", "a"), ("final", "b"), ("final", "c")]
    assert [rejection.hash for rejection in applied[1].rejections] == [b"z2", b"y2"]
    assert store.chain(CHAIN).info().rules == rules
    assert states(store, "z2 y2 w2") == "- - waiting"


def test_final_blocks_and_cut_branches_are_told(store: Store) -> None:
    mirror = dev_mirror(store)
    mirror.apply(PLUGIN, [*line("a b c d", "x", 0), *line("s t", "a", 1)])
    applied = mirror.apply(PLUGIN, [FinalInput(b"c", 2)])
    assert events_of(applied) == [("final", "a"), ("final", "b"), ("final", "c")]
    assert states(store, "a b c d s t") == "final final final canonical cut cut"
    assert mirror.final == store.chain(CHAIN).final() == BlockRef(b"c", 2)
    refusals: list[tuple[Input, Reason]] = [
        (block("u", "t", 3), Reason.BELOW_FINAL),
        (block("u", "b", 2), Reason.BELOW_FINAL),
        (block("u", "u", 2), Reason.SELF_PARENT),
        (block("b", "a", 1, weight=9), Reason.CONFLICT),
        (block("t", "s", 2, content=b"other"), Reason.CONFLICT),
        (block("u", "d", 9), Reason.HEIGHT),
        (block("u", "d", 4, weight=-1), Reason.MALFORMED),
        (block("u", "d", 2**63), Reason.MALFORMED),
        (FinalInput(b"s", 1), Reason.NOT_CANONICAL),
        (FinalInput(b"d", 2**70), Reason.NOT_CANONICAL),
        (ReorgInput(3, 1, (b"d", b"c")), Reason.BELOW_FINAL),
    ]
    for restarted in (False, True):  # the archive answers for what the window no longer holds
        mirror = dev_mirror(store) if restarted else mirror
        for input_, reason in refusals:
            answer = one(mirror.apply(PLUGIN, [input_]))
            assert (answer.verdict, answer.outcome.reason) == (Verdict.REJECTED, reason)
            assert [rejection.reason for rejection in answer.rejections] == [reason]
            assert answer.rejections[0].detail
    assert one(mirror.apply(PLUGIN, [FinalInput(b"a", 0)])).verdict is Verdict.ACCEPTED


def test_the_archive_sees_what_the_same_batch_has_done(store: Store) -> None:
    mirror = dev_mirror(store)
    mirror.apply(PLUGIN, line("a b", "x", 0))
    applied = mirror.apply(
        PLUGIN,
        [
            *line("s", "a", 1),
            *line("c d", "b", 2),
            FinalInput(b"d", 3),
            block("a", "x", 0),  # stored before, left the window now
            block("c", "b", 2),  # came and left in this batch
            block("c", "b", 2, weight=3),
            block("s", "a", 1),  # cut off in this batch
            *line("t", "s", 2),
            FinalInput(b"s", 1),
        ],
    )
    assert [(str(one.verdict), one.outcome.reason) for one in applied[4:]] == [
        ("duplicate", None),
        ("duplicate", None),
        ("rejected", Reason.CONFLICT),
        ("duplicate", None),
        ("rejected", Reason.BELOW_FINAL),
        ("rejected", Reason.NOT_CANONICAL),
    ]


def test_duplicates_and_refused_blocks_write_nothing_but_the_position(store: Store) -> None:
    mirror = dev_mirror(store)
    mirror.apply(PLUGIN, line("a b", "x", 0))
    before, counts = digest(store, CHAIN), store.chain(CHAIN).statistics()
    refused = Rejection(b"evil", Reason.HIGH_HASH, "no work")
    applied = mirror.apply(
        PLUGIN,
        [
            block("a", "x", 0, position=b"1"),
            block("b", "b", 1, position=b"2"),
            RefusedInput(refused, b"3"),
            block("a", "x", 5, position=b"4"),
        ],
    )
    assert [str(one.verdict) for one in applied] == ["duplicate", "rejected", "rejected", "rejected"]
    assert applied[2].rejections == (refused,)
    assert (digest(store, CHAIN), store.chain(CHAIN).statistics()) == (before, counts)
    assert store.position(PLUGIN, CHAIN) == b"4"


def test_positions_belong_to_a_plugin_and_a_chain(store: Store) -> None:
    first, second = dev_mirror(store, name="one"), dev_mirror(store, name="two")
    assert store.position(PLUGIN, "one") is None
    assert store.position(PLUGIN, "nowhere") is None
    first.apply(PLUGIN, [EndOfInput(b"1")])
    second.apply(PLUGIN, [EndOfInput(b"2")])
    first.apply("other", [EndOfInput(b"3")])
    first.apply(PLUGIN, [EndOfInput()])  # a plugin that says no position keeps its last
    assert [store.position(PLUGIN, "one"), store.position(PLUGIN, "two"), store.position("other", "one")] == [b"1", b"2", b"3"]
    assert store.chain("one").position(PLUGIN) == b"1"
    assert store.position("other", "two") is None


def test_orphans_wait_across_restarts(path: Path) -> None:
    inputs = [*line("a", "x", 0), *line("d e", "c", 3)[::-1], *line("c", "b", 2)]
    for input_ in inputs:
        fill(path, [input_])
    with Store.open(path) as store:
        assert states(store, "a c d e") == "canonical waiting waiting waiting"
        assert store.chain(CHAIN).statistics().waiting == 3
        assert store.position(PLUGIN, CHAIN) == b"c"
        assert dev_mirror(store).statistics().orphans == 3
    applied = fill(path, line("b", "a", 1))
    assert events_of(applied) == [("new", "b"), ("new", "c"), ("new", "d"), ("new", "e")]
    with Store.open(path) as store:
        assert states(store, "a b c d e") == " ".join(["canonical"] * 5)
        counts = store.chain(CHAIN).statistics()
        assert (counts.waiting, counts.blocks, counts.transactions, counts.bytes) == (0, 5, 5, 500)


def test_an_orphan_that_connects_and_becomes_final_in_one_batch_is_known_with_its_height(store: Store) -> None:
    mirror = dev_mirror(store)
    mirror.apply(PLUGIN, [*line("a", "x", 0), block("c", "b", None), block("d", "c", None)])
    applied = mirror.apply(
        PLUGIN, [*line("b", "a", 1), FinalInput(b"d", 3), block("c", "b", 2), block("c", "b", 5), FinalInput(b"c", 2)]
    )
    assert [str(one.verdict) for one in applied] == ["accepted", "accepted", "duplicate", "rejected", "accepted"]
    assert (states(store, "a b c d"), mirror.final) == ("final final final final", BlockRef(b"d", 3))
    assert store.chain(CHAIN).find_block("2").hash == b"c"


@pytest.mark.parametrize("batches", [1, 2])
def test_the_oldest_orphan_makes_room_and_leaves_nothing(store: Store, batches: int) -> None:
    mirror = dev_mirror(store, replace(HEAVIEST, orphan_limit=2))
    root, orphans = line("a", "x", 0), [block(name, f"before {name}", None) for name in ("o1", "o2", "o3")]
    if batches == 1:
        applied = mirror.apply(PLUGIN, [*root, *orphans])
    else:
        mirror.apply(PLUGIN, [*root, *orphans[:2]])
        applied = mirror.apply(PLUGIN, orphans[2:])
    assert applied[-1].verdict is Verdict.ORPHAN
    assert [(one.hash, one.reason) for one in applied[-1].rejections] == [(b"o1", Reason.ORPHAN_LIMIT)]
    assert states(store, "o1 o2 o3") == "- waiting waiting"
    assert store.chain(CHAIN).statistics().waiting == 2
    # It is unknown again: the same block may come again, and then evicts the next.
    assert mirror.apply(PLUGIN, orphans[:1])[0].verdict is Verdict.ORPHAN
    assert states(store, "o1 o2 o3") == "waiting - waiting"
    with store.snapshot() as connection:
        for table in ("bodies", "waiting"):
            rows = connection.execute(f"SELECT count(*) FROM {table} WHERE block NOT IN (SELECT id FROM blocks)").fetchone()
            assert rows == (0,)
        assert connection.execute("SELECT count(*) FROM bodies").fetchone() == (3,)


def test_an_orphan_that_does_not_fit_its_parent_goes(store: Store) -> None:
    mirror = dev_mirror(store)
    mirror.apply(PLUGIN, [*line("a", "x", 0), block("c", "b", 7)])
    applied = mirror.apply(PLUGIN, line("b", "a", 1))
    assert [(one.hash, one.reason) for one in applied[0].rejections] == [(b"c", Reason.HEIGHT)]
    assert states(store, "b c") == "canonical -"
    assert mirror.apply(PLUGIN, line("c", "b", 2))[0].verdict is Verdict.ACCEPTED


def test_without_a_pool_orphans_are_dropped(store: Store) -> None:
    mirror = dev_mirror(store, replace(HEAVIEST, orphan_limit=0))
    applied = mirror.apply(PLUGIN, [*line("a", "x", 0), block("c", "b", 2, position=b"p")])
    assert (applied[1].verdict, applied[1].dropped, applied[1].rejections) == (Verdict.ORPHAN, True, ())
    assert states(store, "c") == "-"
    assert store.position(PLUGIN, CHAIN) == b"p"


def test_a_first_block_without_any_height_is_refused_with_the_remedy(store: Store) -> None:
    mirror = dev_mirror(store)
    answer = one(mirror.apply(PLUGIN, [block("a", "x", None, position=b"p")]))
    assert answer.outcome.reason is Reason.HEIGHT
    assert "set start_height" in answer.rejections[0].detail
    assert mirror.tip is None
    assert store.position(PLUGIN, CHAIN) == b"p"
    assert one(mirror.apply(PLUGIN, [block("a", "x", 5)])).verdict is Verdict.ACCEPTED
    assert mirror.tip == BlockRef(b"a", 5)


def test_a_first_block_stands_at_the_height_in_its_bytes_whatever_is_claimed(store: Store) -> None:
    mirror = dev_mirror(store)
    first = block("a", "x", 1000, root_height=227_835)
    assert one(mirror.apply(PLUGIN, [first])).events[0].block == BlockRef(b"a", 227_835)
    # The claim is passed over again when the plugin begins anew, also after a restart and once the block is final.
    assert one(mirror.apply(PLUGIN, [first])).verdict is Verdict.DUPLICATE
    mirror.apply(PLUGIN, [*line("b c d", "a", 227_836), FinalInput(b"c", 227_837)])
    assert one(dev_mirror(store).apply(PLUGIN, [first])).verdict is Verdict.DUPLICATE
    # Any later block is held to what is claimed of it.
    assert one(dev_mirror(store).apply(PLUGIN, [block("e", "d", 1003, root_height=1003)])).outcome.reason is Reason.HEIGHT


@pytest.mark.parametrize("claimed", [None, 0, 5])
def test_the_genesis_block_stands_at_height_0(store: Store, claimed: int | None) -> None:
    mirror = store.mirror("btc", translator=REGTEST, rules=HEAVIEST)
    raw = REGTEST.genesis or b""
    frame = Frame(raw)
    frame.height = claimed
    sent = replace(bitcoin_block(GENESIS, [coinbase(1, 50)]), translated=REGTEST.translate(frame), raw=raw)
    assert one(mirror.apply(PLUGIN, [sent])).events[0].block == BlockRef(GENESIS, 0)
    assert one(mirror.apply(PLUGIN, [sent])).verdict is Verdict.DUPLICATE
    reader = store.chain("btc")
    assert reader.raw(reader.find_block("0")) == raw


@pytest.mark.parametrize("claimed", [None, 1, 7])
def test_a_child_of_the_genesis_block_brings_it_along(store: Store, claimed: int | None) -> None:
    mirror = store.mirror("btc", translator=REGTEST, rules=replace(HEAVIEST, final_depth=1))
    child = bitcoin_block(GENESIS, [coinbase(1, 50)])
    child = replace(child, translated=replace(child.translated, height=claimed))
    applied = one(mirror.apply(PLUGIN, [child]))
    hash_ = child.translated.hash
    assert [(str(event.step), event.block) for event in applied.events] == [
        ("new", BlockRef(GENESIS, 0)),
        ("new", BlockRef(hash_, 1)),
    ]
    assert [connected.block.height for connected in applied.outcome.connected] == [0, 1]
    reader = store.chain("btc")
    assert [event.block.height for event in reader.events()] == [0, 1]
    assert reader.raw(reader.find_block("0")) == REGTEST.genesis
    assert reader.statistics().blocks == 2
    grandchild = bitcoin_block(hash_, [coinbase(2, 50)])
    again = mirror.apply(PLUGIN, [child, grandchild])
    assert [str(one.verdict) for one in again] == ["duplicate", "accepted"]
    assert [str(event.step) for event in again[1].events] == ["new", "final"]


def test_a_first_block_of_the_middle_takes_its_height_from_bip_34(store: Store) -> None:
    mirror = store.mirror("btc", translator=REGTEST, rules=HEAVIEST)
    middle = bitcoin_block(bytes(31) + b"\x01", [coinbase(300, 50)])
    assert one(mirror.apply(PLUGIN, [middle])).events[0].block.height == 300
    assert store.chain("btc").transaction(bitcoin_id(coinbase(300, 50))).block.height == 300


def test_what_no_row_can_hold_is_refused(store: Store) -> None:
    mirror = dev_mirror(store)
    late = block("b", "a", 1)
    late = replace(late, translated=replace(late.translated, time=2**64))
    applied = mirror.apply(PLUGIN, [*line("a", "x", 0), late, block("b", "a", 1, weight=2**256, final_height=2**64)])
    assert [one.outcome.reason for one in applied] == [None, Reason.MALFORMED, None]
    assert store.chain(CHAIN).find_block("1").weight == 2**256
    assert states(store, "b") == "final"


def test_a_final_claim_outlives_its_block_and_a_restart(store: Store) -> None:
    mirror = dev_mirror(store)
    mirror.apply(PLUGIN, [*line("a", "x", 0), block("b", "a", 1, final_height=3)])
    assert states(store, "a b") == "final final"
    assert events_of(dev_mirror(store).apply(PLUGIN, line("c d e", "b", 2))) == [
        ("new", "c"),
        ("final", "c"),
        ("new", "d"),
        ("final", "d"),
        ("new", "e"),
    ]


def test_follow_mode_takes_the_plugins_word_across_restarts(store: Store) -> None:
    rules = replace(HEAVIEST, mode=ForkMode.FOLLOW)
    inputs: list[Input] = [*line("a b c", "x", 0), ReorgInput(2, 0, (b"c", b"b")), *line("d", "a", 1), *line("b c", "a", 1)]
    told = []
    for input_ in inputs:
        told += events_of(dev_mirror(store, rules).apply(PLUGIN, [input_]))
    steps = "new a, new b, new c, undo c, undo b, new d, undo d, new b, new c"
    assert ", ".join(" ".join(event) for event in told) == steps
    assert states(store, "a b c d") == "canonical canonical canonical side"
    assert store.chain(CHAIN).statistics().reorgs == 2


def test_chains_share_one_order_of_events_and_nothing_else(store: Store) -> None:
    first, second = dev_mirror(store, name="one"), dev_mirror(store, name="two")
    first.apply(PLUGIN, line("a b", "x", 0))
    second.apply(PLUGIN, line("a", "x", 3))
    first.apply(PLUGIN, line("c", "b", 2))
    assert [(event.sequence, event.chain, event.block.height) for event in store.events()] == [
        (1, "one", 0),
        (2, "one", 1),
        (3, "two", 3),
        (4, "one", 2),
    ]
    assert [event.sequence for event in store.chain("one").events(after=1)] == [2, 4]
    assert [event.sequence for event in store.events(after=1, limit=2)] == [2, 3]
    assert store.events(after=4) == store.events(limit=0) == []
    assert [chain.name for chain in store.chains()] == ["one", "two"]
    with pytest.raises(NotInStore, match="it has one, two"):
        store.chain("three")


def test_frames_may_lend_their_bytes_as_views(store: Store) -> None:
    given = replace(block("a", "x", 0), raw=memoryview(bytearray(raw_bytes("a"))))
    dev_mirror(store).apply(PLUGIN, [given])
    reader = store.chain(CHAIN)
    assert reader.raw(reader.find_block("0")) == raw_bytes("a")
    assert reader.find_block("0").state is BlockState.CANONICAL


def test_a_long_chain_in_small_batches_gives_the_same_as_in_one(tmp_path: Path) -> None:
    rules = replace(HEAVIEST, final_depth=5)
    inputs = chain_of(300)
    fill(tmp_path / "whole", inputs, rules)
    with Store.open(tmp_path / "parts") as store:
        mirror = dev_mirror(store, rules)
        for start in range(0, 300, 7):
            mirror.apply(PLUGIN, inputs[start : start + 7])
    with Store.open(tmp_path / "whole") as whole, Store.open(tmp_path / "parts") as parts:
        assert digest(whole, CHAIN) == digest(parts, CHAIN)
        assert digest(whole, CHAIN).events == 300 + 294
