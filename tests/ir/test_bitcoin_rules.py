"""Every rule that a Bitcoin block has to keep, each broken alone, and the order in which they are looked at."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervm_rt.ir._bitcoin import parse_block
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.translator import BlockRefused, RawBlock, TranslatedBlock
from supervm_rt.model.chain import Reason
from tests.ir.blocks import (
    REGTEST_LIMIT,
    Block,
    Pay,
    Spend,
    Transaction,
    coinbase,
    commitment,
    committed,
    compact,
    merkle,
    sha256d,
    spend,
    witness_block,
)

REGTEST = BitcoinTranslator("regtest")
FULL = witness_block()
FULL_RAW = FULL.raw()
PLAIN = Block((coinbase(), spend(1), spend(2)))
SEGWIT_HEIGHT = 481_824
HEIGHT_300 = b"\x02\x2c\x01"


def accepted(block: Block | bytes) -> TranslatedBlock:
    return REGTEST.translate(RawBlock(block if isinstance(block, bytes) else block.raw()))


def refused(block: Block | bytes, reason: Reason) -> BlockRefused:
    raw = block if isinstance(block, bytes) else block.raw()
    with pytest.raises(BlockRefused) as caught:
        REGTEST.translate(RawBlock(raw))
    assert caught.value.reason is reason, caught.value
    assert caught.value.detail
    assert caught.value.hash == (sha256d(raw[:80])[::-1] if len(raw) >= 80 else None)
    return caught.value


# ---- encoding


def test_sound_block_gives_its_identity() -> None:
    translated = accepted(FULL)
    assert translated.hash == sha256d(FULL_RAW[:80])[::-1]
    assert translated.parent == FULL.previous[::-1]
    assert translated.time == FULL.time
    assert translated.weight == 2
    assert translated.root_height == 300
    assert translated.height is None
    assert translated.transaction_ids == b"".join(transaction.txid[::-1] for transaction in FULL.transactions)
    assert translated.content == b""
    assert translated == accepted(FULL)


def test_every_truncation_is_malformed_and_nothing_else() -> None:
    for length in range(len(FULL_RAW)):
        refused(FULL_RAW[:length], Reason.MALFORMED)


def test_bytes_behind_the_block_are_malformed() -> None:
    assert "behind the last" in refused(FULL_RAW + b"\0", Reason.MALFORMED).detail


def test_no_transactions_is_malformed() -> None:
    refused(replace(PLAIN, body=b"\0"), Reason.MALFORMED)


SOUND = coinbase()
PARTS = SOUND.stripped()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xfd\x01\x00" + PARTS, id="count of transactions in three bytes"),
        pytest.param(b"\xfe\x01\x00\x00\x00" + PARTS, id="count of transactions in five bytes"),
        pytest.param(b"\xff\x01" + bytes(7) + PARTS, id="count of transactions in nine bytes"),
        pytest.param(b"\x01" + PARTS[:4] + b"\xfd\x01\x00" + PARTS[5:], id="count of inputs"),
        pytest.param(b"\x01" + PARTS[:41] + b"\xfd\x03\x00" + PARTS[42:], id="length of a script"),
        pytest.param(b"\x01" + PARTS[:49] + b"\xfd\x01\x00" + PARTS[50:], id="count of outputs"),
        pytest.param(b"\x01" + PARTS[:41] + b"\xfd\xfc\x00" + bytes(300), id="the largest that fits one byte"),
        pytest.param(b"\x01" + PARTS[:41] + b"\xfe\xff\xff\x00\x00" + bytes(70_000), id="the largest that fits three bytes"),
        pytest.param(
            b"\x01" + PARTS[:41] + b"\xff\xff\xff\xff\xff\x00\x00\x00\x00" + bytes(300), id="the largest that fits five bytes"
        ),
    ],
)
def test_numbers_that_are_not_in_their_shortest_form_are_malformed(body: bytes) -> None:
    assert "shortest" in refused(replace(PLAIN, body=body), Reason.MALFORMED).detail


def test_witness_lengths_that_are_not_in_their_shortest_form_are_malformed() -> None:
    witness = coinbase(witness=(b"x",)).raw()
    assert witness[-7:] == b"\x01\x01x" + bytes(4)
    for tail in (b"\xfd\x01\x00\x01x", b"\x01\xfd\x01\x00x"):
        assert "shortest" in refused(replace(PLAIN, body=b"\x01" + witness[:-7] + tail + bytes(4)), Reason.MALFORMED).detail


@pytest.mark.parametrize("count", [b"\xfd\xff\xff", b"\xfe\xff\xff\xff\xff", b"\xff" * 9, b"\xff" + bytes(7) + b"\x80"])
@pytest.mark.parametrize("before", [b"", b"\x01" + PARTS[:4], b"\x01" + PARTS[:41], b"\x01" + PARTS[:49], b"\x01" + PARTS[:58]])
def test_impossible_counts_and_lengths_are_malformed_and_cost_nothing(before: bytes, count: bytes) -> None:
    assert "larger than what remains" in refused(replace(PLAIN, body=before + count + bytes(100)), Reason.MALFORMED).detail


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (b"\0\0" + bytes(50), "no inputs"),
        (b"\0\1\0" + bytes(50), "no inputs"),
        (b"\0\2" + SOUND.body() + bytes(50), "unknown kind"),
        (b"\0\3" + SOUND.body() + b"\1\1x" + bytes(50), "unknown kind"),
        (b"\0\1" + SOUND.body() + b"\0" + bytes(50), "has none"),
    ],
)
def test_transactions_without_inputs_or_with_superfluous_or_unknown_data_are_malformed(inside: bytes, said: str) -> None:
    assert said in refused(replace(PLAIN, body=b"\1" + PARTS[:4] + inside), Reason.MALFORMED).detail


def test_negative_amount_is_malformed() -> None:
    assert "negative" in refused(Block((coinbase(pays=(Pay(1 << 63),)),)), Reason.MALFORMED).detail


def test_the_place_of_a_fault_is_told() -> None:
    raw = PLAIN.raw()
    fault = refused(raw[:-1], Reason.MALFORMED)
    assert f"byte {len(raw) - 4}, in transaction 2" in fault.detail


def block_of_weight(weight: int) -> Block:
    """A block of exactly this weight: most of it in one output, the rest, in steps of one, in a witness."""

    def block(witness: int) -> Block:
        return Block(committed((coinbase(pays=(Pay(1, bytes((weight - 3000) // 4)),)), spend(1, witness=(bytes(witness),)))))

    made = block(1000 + weight - weight_of(block(1000)))
    assert weight_of(made) == weight
    return made


def weight_of(block: Block) -> int:
    around = 80 + len(compact(len(block.transactions)))
    sizes = [(len(transaction.stripped()), len(transaction.raw())) for transaction in block.transactions]
    return 4 * around + sum(3 * stripped + size for stripped, size in sizes)


def test_weight_limit() -> None:
    assert accepted(block_of_weight(4_000_000)).root_height == 300
    assert "4,000,000" in refused(block_of_weight(4_000_001), Reason.MALFORMED).detail
    refused(PLAIN.raw() + bytes(4_000_000), Reason.MALFORMED)


# ---- proof of work


@pytest.mark.parametrize(
    "bits",
    [
        pytest.param(0x2080FFFF, id="negative"),
        pytest.param(0x20FFFFFF, id="negative, large"),
        pytest.param(0x20000000, id="zero"),
        pytest.param(0x00FFFFFF, id="shifted to zero"),
        pytest.param(0x01003456, id="one byte, shifted to zero"),
        pytest.param(0xFF123456, id="overflow"),
        pytest.param(0x22000100, id="overflow by a byte"),
        pytest.param(0x21010000, id="overflow by two bytes"),
        pytest.param(0x21008000, id="above the limit"),
        pytest.param(0x03000001, id="a target that the hash is above"),
    ],
)
def test_bits_that_the_network_does_not_allow_or_the_hash_does_not_meet(bits: int) -> None:
    refused(replace(PLAIN, bits=bits), Reason.HIGH_HASH)


def test_hash_above_the_target() -> None:
    assert "above the target" in refused(replace(PLAIN, below=False), Reason.HIGH_HASH).detail


def test_limit_is_the_networks() -> None:
    raw = PLAIN.raw()
    for network in ("main", "testnet3", "testnet4", "signet"):
        with pytest.raises(BlockRefused) as caught:
            BitcoinTranslator(network).translate(RawBlock(raw))
        assert caught.value.reason is Reason.HIGH_HASH
        assert "this network" in caught.value.detail


def test_weight_is_the_work_that_the_bits_stand_for() -> None:
    target = 0x7F << 8 * 30
    candidates = (replace(PLAIN, bits=0x2100007F, time=PLAIN.time + second) for second in range(10_000))
    block = next(block for block in candidates if int.from_bytes(sha256d(block.header()), "little") <= target)
    assert accepted(block).weight == (1 << 256) // (target + 1) == 516
    assert accepted(PLAIN).weight == 2


# ---- Merkle root


def test_changed_transaction_gives_another_root() -> None:
    refused(replace(PLAIN, root=bytes(32)), Reason.BAD_MERKLE_ROOT)
    changed = bytearray(PLAIN.raw())
    changed[-1] ^= 1
    refused(bytes(changed), Reason.BAD_MERKLE_ROOT)


@pytest.mark.parametrize(("count", "repeated"), [(3, 1), (5, 1), (6, 2), (7, 1), (10, 2), (12, 4), (24, 8), (11, 1)])
def test_mutated_twin_of_the_same_root_is_refused(count: int, repeated: int) -> None:
    transactions = (coinbase(), *(spend(number) for number in range(1, count)))
    block = Block(transactions)
    twin = replace(block, transactions=(*transactions, *transactions[-repeated:]))
    assert twin.raw()[:80] == block.raw()[:80]
    assert accepted(block).hash == refused(twin, Reason.DUPLICATE_TRANSACTIONS).hash


def test_repeated_transactions_that_change_the_root_are_told_from_mutation() -> None:
    transactions = (coinbase(), spend(1), spend(1), spend(2))
    accepted(Block(transactions))
    refused(Block((coinbase(), spend(2), spend(1), spend(1))), Reason.DUPLICATE_TRANSACTIONS)


# ---- coinbase


def test_first_transaction_has_to_be_a_coinbase() -> None:
    assert "first transaction" in refused(Block((spend(1), spend(2))), Reason.MALFORMED).detail
    assert "first transaction" in refused(Block((spend(1), coinbase())), Reason.MALFORMED).detail


def test_second_coinbase_is_malformed() -> None:
    assert "more than one" in refused(Block((coinbase(), coinbase(b"\x01\x11"))), Reason.MALFORMED).detail


@pytest.mark.parametrize(
    "spends",
    [
        (Spend(bytes(32), 0xFFFFFFFF), Spend(bytes(32), 0xFFFFFFFF)),
        (Spend(bytes(32), 0),),
        (Spend(b"\1" + bytes(31), 0xFFFFFFFF),),
        (Spend(bytes(31) + b"\1", 0xFFFFFFFF),),
    ],
)
def test_only_one_null_outpoint_makes_a_coinbase(spends: tuple[Spend, ...]) -> None:
    accepted(Block((coinbase(), Transaction(spends))))
    refused(Block((Transaction(spends),)), Reason.MALFORMED)


# ---- witness


def with_coinbase(block: Block, first: Transaction) -> Block:
    return replace(block, transactions=(first, *block.transactions[1:]))


def stack(block: Block, *items: bytes) -> Block:
    """The block with another witness of its coinbase; its hash stays."""
    first = block.transactions[0]
    return with_coinbase(block, replace(first, spends=(replace(first.spends[0], witness=items),)))


def stripped(block: Block) -> Block:
    return replace(
        block,
        transactions=tuple(
            replace(transaction, spends=tuple(replace(spent, witness=()) for spent in transaction.spends))
            for transaction in block.transactions
        ),
    )


def changed_witness(block: Block) -> Block:
    *others, last = block.transactions
    return replace(
        block, transactions=(*others, replace(last, spends=(*last.spends[:-1], replace(last.spends[-1], witness=(b"two",)))))
    )


@pytest.mark.parametrize(
    "twin",
    [
        pytest.param(stripped(FULL), id="witness stripped"),
        pytest.param(stack(FULL), id="coinbase without its witness"),
        pytest.param(stack(FULL, b"\1" + bytes(31)), id="another nonce"),
        pytest.param(stack(FULL, bytes(31)), id="short nonce"),
        pytest.param(stack(FULL, bytes(33)), id="long nonce"),
        pytest.param(stack(FULL, bytes(32), b""), id="two items"),
        pytest.param(changed_witness(FULL), id="changed witness"),
    ],
)
def test_twin_with_other_witness_data_does_not_take_the_blocks_place(twin: Block) -> None:
    assert twin.raw()[:80] == FULL_RAW[:80]
    assert twin.raw() != FULL_RAW
    assert refused(twin, Reason.BAD_WITNESS).hash == accepted(FULL).hash


def test_witness_without_commitment() -> None:
    refused(Block((coinbase(), spend(1, witness=(b"x",)))), Reason.BAD_WITNESS)
    refused(Block((coinbase(witness=(bytes(32),)), spend(1))), Reason.BAD_WITNESS)


def test_commitment_without_witness_of_others_still_has_to_hold() -> None:
    block = Block(committed((coinbase(), spend(1))))
    accepted(block)
    refused(stripped(block), Reason.BAD_WITNESS)


def test_last_commitment_counts() -> None:
    transactions = (coinbase(), spend(1, witness=(b"x",)))
    true, wrong = Pay(0, commitment(transactions)), Pay(0, commitment((coinbase(), spend(9))))
    for pays, good in (((wrong, true), True), ((true, wrong), False), ((true, Pay(0, true.script[:37])), True)):
        block = Block((coinbase(pays=pays, witness=(bytes(32),)), *transactions[1:]))
        if good:
            accepted(block)
        else:
            refused(block, Reason.BAD_WITNESS)


def test_commitment_script_may_be_longer() -> None:
    transactions = (coinbase(), spend(1, witness=(b"x",)))
    accepted(Block((coinbase(pays=(Pay(0, commitment(transactions) + b"more"),), witness=(bytes(32),)), *transactions[1:])))


def height_script(height: int) -> bytes:
    data = height.to_bytes(height.bit_length() // 8 + 1, "little")
    return bytes([len(data)]) + data


@pytest.mark.parametrize(
    ("version", "height", "active"),
    [(4, SEGWIT_HEIGHT - 1, False), (4, SEGWIT_HEIGHT, True), (0x20000000, 800_000, True), (1, 800_000, False), (2, 5, False)],
)
def test_where_segwit_begins_at_a_height_the_block_itself_says_whether_it_is_active(
    version: int, height: int, active: bool
) -> None:
    def reason(block: Block) -> Reason | None:
        try:
            parse_block(block.raw(), REGTEST_LIMIT, SEGWIT_HEIGHT)
        except BlockRefused as verdict:
            return verdict.reason
        return None

    block = Block(committed((coinbase(height_script(height)), spend(1, witness=(b"x",)))), version=version)
    assert reason(block) is (None if active else Reason.BAD_WITNESS)
    assert reason(stripped(block)) is (Reason.BAD_WITNESS if active else None)


# ---- order


def test_checks_are_made_in_the_nodes_order() -> None:
    wrong_root = replace(FULL, root=bytes(32))
    refused(replace(wrong_root, below=False).raw()[:-1], Reason.MALFORMED)
    refused(replace(wrong_root, below=False), Reason.HIGH_HASH)
    refused(replace(stripped(FULL), root=bytes(32)), Reason.BAD_MERKLE_ROOT)
    refused(Block((spend(1), spend(1))), Reason.DUPLICATE_TRANSACTIONS)
    refused(Block((spend(1, witness=(b"x",)),)), Reason.MALFORMED)


# ---- height of a first block (BIP 34)


@pytest.mark.parametrize(
    ("script", "version", "height"),
    [
        (b"\x51\x00", 2, 1),
        (b"\x60", 2, 16),
        (b"\x01\x11", 2, 17),
        (b"\x01\x7f", 2, 127),
        (b"\x02\x80\x00", 2, 128),
        (b"\x02\x2c\x01rest", 2, 300),
        (b"\x03\x00\x00\x01", 2, 65536),
        (b"\x04\xff\xff\xff\x7f", 2, 0x7FFFFFFF),
        (b"\x02\x2c\x01", 1, None),
        (b"\x02\x2c\x01", -1, None),
        (b"\x01\x05", 2, None),
        (b"\x01\x10", 2, None),
        (b"\x01\x80", 2, None),
        (b"\x02\x7f\x00", 2, None),
        (b"\x03\x2c\x01\x00", 2, None),
        (b"\x03\x2c\x01", 2, None),
        (b"\x05\x00\x00\x00\x00\x01", 2, None),
        (b"\x4c\x02\x2c\x01", 2, None),
        (b"\x00", 2, None),
        (b"", 2, None),
        (b"\x61", 2, None),
    ],
)
def test_height_that_the_coinbase_commits_to(script: bytes, version: int, height: int | None) -> None:
    assert accepted(Block((coinbase(script),), version=version)).root_height == height


# ---- claims


def test_claims_are_compared_and_never_believed() -> None:
    true = accepted(FULL)
    same = REGTEST.translate(RawBlock(FULL_RAW, hash_=true.hash, parent=true.parent, height=7, time=5, weight=99))
    assert (same.height, same.time, same.weight, same.root_height) == (7, true.time, 2, 300)
    assert same.ir == true.ir
    for lie in (true.hash[::-1], true.hash[:31], b"x"):
        with pytest.raises(BlockRefused) as caught:
            REGTEST.translate(RawBlock(FULL_RAW, hash_=lie))
        assert (caught.value.reason, caught.value.hash) == (Reason.MALFORMED, true.hash)
        with pytest.raises(BlockRefused) as caught:
            REGTEST.translate(RawBlock(FULL_RAW, parent=lie))
        assert (caught.value.reason, caught.value.hash) == (Reason.MALFORMED, true.hash)


# ---- whatever comes


def outcome(raw: bytes) -> TranslatedBlock | None:
    """What became of it; anything but a block or a refusal fails the test."""
    try:
        return accepted(raw)
    except BlockRefused:
        return None


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(flips=st.lists(st.tuples(st.integers(0, len(FULL_RAW) - 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_of_all_bytes_with_one_hash_only_one_is_accepted(flips: list[tuple[int, int]]) -> None:
    changed = bytearray(FULL_RAW)
    for place, by in flips:
        changed[place] ^= by
    translated = outcome(bytes(changed))
    if translated is not None and bytes(changed) != FULL_RAW:
        assert translated.hash != accepted(FULL).hash


@settings(max_examples=400, deadline=None)
@given(
    start=st.integers(80, len(FULL_RAW)),
    removed=st.integers(0, 50),
    put=st.binary(max_size=50) | st.sampled_from([b"\xff" * 9, b"\xfe\xff\xff\xff\x7f", b"\0\1", b"\xfd\0\0"]),
)
def test_spliced_bytes_are_refused(start: int, removed: int, put: bytes) -> None:
    changed = FULL_RAW[:start] + put + FULL_RAW[start + removed :]
    assert outcome(changed) is None or changed == FULL_RAW


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_body_behind_a_mined_header_is_refused(body: bytes) -> None:
    assert outcome(FULL_RAW[:80] + body) is None


@st.composite
def any_block(draw: st.DrawFn) -> Block:
    items = st.lists(st.binary(max_size=80), max_size=3).map(tuple)
    spends = st.builds(
        Spend, st.binary(min_size=32, max_size=32), st.integers(0, 1 << 31), st.binary(max_size=300), st.just(1), items
    )
    pays = st.builds(Pay, st.integers(0, (1 << 63) - 1), st.binary(max_size=300))
    transactions = st.builds(
        Transaction,
        st.lists(spends, min_size=1, max_size=3).map(tuple),
        st.lists(pays, max_size=3).map(tuple),
        st.integers(0, (1 << 32) - 1),
        st.integers(0, (1 << 32) - 1),
    )
    others = draw(st.lists(transactions, max_size=6, unique_by=lambda transaction: transaction.txid))
    return Block(committed((coinbase(), *others)))


@settings(max_examples=100, deadline=None)
@given(any_block())
def test_any_sound_block_is_accepted_with_its_ids(block: Block) -> None:
    translated = accepted(block)
    assert translated.transaction_ids == b"".join(transaction.txid[::-1] for transaction in block.transactions)
    assert merkle([transaction.txid for transaction in block.transactions]) == block.raw()[36:68]


def test_bytes_may_come_in_any_buffer() -> None:
    class Mutable(bytearray):
        hash = parent = b""
        height = time = weight = None

    assert REGTEST.translate(Mutable(FULL_RAW)) == accepted(FULL)
    assert struct.unpack_from("<i", FULL_RAW)[0] == FULL.version
