"""Messages of remote plugins as frames: what is said arrives, what must not be is refused, and Google's protobuf agrees."""

from __future__ import annotations

import gc
import random
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuzz.remote_differential.comparison import all_ways
from fuzz.remote_differential.reference import NUMBERS, BlockMessage
from fuzz.remote_differential.seeds import seeds
from fuzz.remote_differential.wire import field, varint
from supervm_rt import _abi
from supervm_rt.errors import MessageRefused
from supervm_rt.transports.remote._frames import hear

HASH, PARENT = b"h" * 32, b"p" * 32


def block(**fields: Any) -> Any:
    return BlockMessage(**fields)


def one(message: Any, *, chain: bytes | None = None) -> _abi.Frame:
    frames, other = hear(message.SerializeToString(), generation=3, chain=chain)
    assert other is None
    (frame,) = frames
    return frame


def reorg(**fields: Any) -> Any:
    message = BlockMessage()
    message.reorg.SetInParent()
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(message.reorg, name).extend(value)
        else:
            setattr(message.reorg, name, value)
    return message


# ---- what is said ------------------------------------------------------------------------------------------------------------


def test_a_block_arrives_with_all_that_it_says() -> None:
    message = block(
        chain="bitcoin",
        height=800_000,
        block_bytes=b"raw",
        hash=HASH,
        parent=PARENT,
        position=b"0:17",
        final_height=799_994,
        weight=b"\x00\x01",
    )
    message.timestamp.seconds, message.timestamp.nanos = 1_700_000_000, 7
    frame = one(message, chain=b"bitcoin")
    assert type(frame) is _abi.Frame
    assert (frame.kind, frame.generation, bytes(frame), len(frame)) == (_abi.KIND_BLOCK, 3, b"raw", 3)
    assert (frame.height, frame.final_height, frame.time) == (800_000, 799_994, 1_700_000_000_000_000_007)
    assert (frame.hash, frame.parent, frame.position, frame.weight) == (HASH, PARENT, b"0:17", 256)
    assert (frame.to_height, frame.orphans) == (None, [])


@pytest.mark.parametrize("number", [15, 16, 19, 38, 900, (1 << 29) - 1])
@pytest.mark.parametrize("behind", [False, True])
def test_fields_that_are_not_known_say_nothing(number: int, *, behind: bool) -> None:
    """A later revision of the contract may have them."""
    unknown = b"".join(
        varint(number << 3 | kind) + said for kind, said in ((2, b"\x03new"), (0, b"\x07"), (1, bytes(8)), (5, bytes(4)))
    )
    known = block(height=5, block_bytes=b"raw", hash=HASH, parent=PARENT, position=b"0:17").SerializeToString()
    (frame,), other = hear(known + unknown if behind else unknown + known, generation=3)
    assert other is None
    assert (bytes(frame), frame.height, frame.hash, frame.parent) == (b"raw", 5, HASH, PARENT)
    assert (frame.position, frame.final_height, frame.weight) == (b"0:17", None, None)


def test_what_is_not_said_is_unknown() -> None:
    frame = one(block())
    assert (frame.kind, bytes(frame)) == (_abi.KIND_BLOCK, b"")
    assert (frame.height, frame.final_height, frame.time, frame.weight) == (None, None, None, None)
    assert (frame.hash, frame.parent, frame.position) == (b"", b"", b"")
    assert memoryview(frame).nbytes == 0


def test_the_height_of_the_first_block_is_said_by_genesis() -> None:
    assert one(block(genesis=True)).height == 0
    assert one(block(height=0)).height is None


def test_a_height_of_final_zero_is_said() -> None:
    assert one(block(final_height=0)).final_height == 0


@pytest.mark.parametrize("seconds", [-62_135_596_800, 253_402_300_799, -(2**63), 2**63 - 1, 9_223_372_037])
def test_a_time_that_nanoseconds_cannot_say_is_unknown(seconds: int) -> None:
    message = block()
    message.timestamp.seconds = seconds
    assert one(message).time is None


def test_a_reorg() -> None:
    message = reorg(chain="bitcoin", from_height=9, to_height=7, orphan_block_hashes=[HASH, PARENT])
    message.position = b"here"
    frame = one(message, chain=b"bitcoin")
    assert (frame.kind, frame.height, frame.to_height) == (_abi.KIND_REORG, 9, 7)
    assert (frame.orphans, frame.position) == ([HASH, PARENT], b"here")
    assert one(reorg(from_height=4, to_height=4)).orphans == []


def test_finalized_and_end_of_input() -> None:
    message = BlockMessage(position=b"p")
    message.finalized.height, message.finalized.hash = 0, HASH
    frame = one(message)
    assert (frame.kind, frame.height, frame.hash, frame.position) == (_abi.KIND_FINALIZED, 0, HASH, b"p")
    message = BlockMessage(position=b"q")
    message.end_of_input.SetInParent()
    frame = one(message)
    assert (frame.kind, frame.position, len(frame)) == (_abi.KIND_END_OF_INPUT, b"q", 0)


def test_a_batch_keeps_its_order() -> None:
    end = BlockMessage()
    end.end_of_input.SetInParent()
    message = BlockMessage()
    message.batch.blocks.extend([block(height=1), reorg(from_height=1), block(height=2, block_bytes=b"x" * 500), end])
    frames, other = hear(message.SerializeToString(), generation=1)
    assert other is None
    assert [frame.kind for frame in frames] == [1, 2, 1, 4]
    assert [len(frame) for frame in frames] == [0, 0, 500, 0]
    assert hear(field(23, b""), generation=1) == ([], None)


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - {"reorg", "finalized", "end_of_input", "batch"}))
def test_all_else_is_handed_on(name: str) -> None:
    data = seeds()[name]
    frames, other = hear(data, generation=1)
    body = getattr(BlockMessage.FromString(data), name)
    assert frames == []
    assert other == (NUMBERS[name], body.SerializeToString())


def test_a_body_in_very_many_pieces_takes_no_longer_than_its_bytes() -> None:
    pieces = field(24, b"\x12\x01a") * 300_000 + field(24, b"\x12\x01b")
    _, other = hear(pieces, generation=1)
    assert other is not None
    assert other[1] == b"\x12\x01a" * 300_000 + b"\x12\x01b"


# ---- memory ------------------------------------------------------------------------------------------------------------------


class Buffer(bytearray):
    """A buffer whose end can be noticed."""


def test_a_large_payload_is_a_view_that_keeps_the_bytes() -> None:
    kept = Buffer(block(block_bytes=random.Random(1).randbytes(100_000), hash=HASH).SerializeToString())
    gone = weakref.ref(kept)
    (frame,), _ = hear(memoryview(kept).toreadonly(), generation=1)
    view = memoryview(frame)
    kept[200] ^= 0xFF  # A frame that looks into the same memory sees it.
    assert view == memoryview(kept)[-view.nbytes - 34 : -34]
    with pytest.raises(BufferError):
        kept.clear()
    del frame
    del kept
    gc.collect()
    assert gone() is not None
    assert view.nbytes == 100_000
    view.release()
    del view
    gc.collect()
    assert gone() is None


def test_a_small_payload_does_not_keep_a_large_message() -> None:
    message = BlockMessage()
    message.batch.blocks.extend([block(block_bytes=b"small", hash=HASH), block(block_bytes=b"l" * 1_000_000)])
    kept = Buffer(message.SerializeToString())
    gone = weakref.ref(kept)
    (small, large), _ = hear(memoryview(kept).toreadonly(), generation=1)
    del kept, large
    gc.collect()
    assert gone() is None
    assert (bytes(small), small.hash) == (b"small", HASH)


def test_frames_do_not_lose_or_gather_references() -> None:
    data = block(block_bytes=b"x" * 1000).SerializeToString()
    before = sys.getrefcount(data)
    frames = [hear(data, generation=1)[0][0] for _ in range(100)]
    views = [memoryview(frame) for frame in frames]
    assert sys.getrefcount(data) == before + 100
    del frames, views
    assert sys.getrefcount(data) == before


def test_bytes_that_can_change_are_not_read() -> None:
    with pytest.raises(TypeError, match="can change"):
        hear(bytearray(b"\x10\x05"), generation=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        hear("text", generation=1)  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        hear(memoryview(b"\x10\x05\x10\x05")[::2], generation=1)


# ---- what is refused ---------------------------------------------------------------------------------------------------------


def bad_time() -> Any:
    message = block()
    message.timestamp.nanos = 10**9
    return message


def final(height: int, hash_: bytes) -> Any:
    message = BlockMessage()
    message.finalized.height, message.finalized.hash = height, hash_
    return message


def batched(*messages: Any) -> Any:
    message = BlockMessage()
    message.batch.blocks.extend(messages)
    return message


def log() -> Any:
    message = BlockMessage()
    message.log.text = "t"
    return message


REFUSED: list[tuple[str, Callable[[], Any], str]] = [
    ("chain", lambda: block(chain="ethereum"), "names the chain 'ethereum'"),
    ("reorg's chain", lambda: reorg(chain="ethereum\x1b"), r"names the chain 'ethereum\x1b'"),
    ("hash", lambda: block(hash=bytes(65)), "hash has 65 bytes; at most 64 are allowed"),
    ("parent", lambda: block(parent=bytes(300)), "parent has 300 bytes"),
    ("weight", lambda: block(weight=bytes(33)), "weight has 33 bytes; at most 32"),
    ("position", lambda: block(position=bytes(257)), "position has 257 bytes; at most 256"),
    ("time", bad_time, "nanos of timestamp"),
    ("step", lambda: block(step=1), "step is not STEP_NEW"),
    ("genesis above 0", lambda: block(genesis=True, height=4), "genesis is said of a block at height 4"),
    ("upwards", lambda: reorg(from_height=3, to_height=4), "from_height is 3, below reorg.to_height, 4"),
    ("no height", lambda: reorg(from_height=2**64 - 1), "18446744073709551615 is no height"),
    ("no final height", lambda: final(2**64 - 1, HASH), "18446744073709551615 is no height"),
    ("empty orphan", lambda: reorg(orphan_block_hashes=[b""]), "one length between 1 and 64"),
    ("long orphan", lambda: reorg(orphan_block_hashes=[bytes(65)]), "one length between 1 and 64"),
    ("orphans differ", lambda: reorg(orphan_block_hashes=[HASH, HASH, b"short"]), "one length between 1 and 64"),
    ("many orphans", lambda: reorg(orphan_block_hashes=[b"o"] * 65_537), "more than 65536 blocks"),
    ("final without hash", lambda: final(3, b""), "finalized.hash has 0 bytes"),
    ("final with long hash", lambda: final(3, bytes(65)), "finalized.hash has 65 bytes"),
    ("batch in batch", lambda: batched(block(), batched(block())), "batch.blocks[1] is not allowed: it is itself a batch"),
    ("log in batch", lambda: batched(log()), "batch.blocks[0] is not allowed: only blocks, reorg, finalized and end_of_input"),
    ("second of batch", lambda: batched(block(), block(hash=bytes(65))), "batch.blocks[1] is not allowed: hash has 65 bytes"),
    ("long batch", lambda: batched(*[block()] * 8193), "at most 8192 messages"),
]


@pytest.mark.parametrize(("make", "why"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_must_not_be_said_is_refused_by_name(make: Callable[[], Any], why: str) -> None:
    data = make().SerializeToString()
    with pytest.raises(MessageRefused) as refused:
        hear(data, generation=1, chain=b"bitcoin")
    assert why in str(refused.value)
    assert "proto/plugin_host.proto" in refused.value.remedy
    assert refused.value.blame == "plugin"
    assert all_ways(data) == "not allowed" if "chain" not in why else True


NO_MESSAGES: list[tuple[str, bytes, str]] = [
    ("ends in a tag", b"\x80", "it ends inside a field (byte 0)"),
    ("ends in a number", b"\x10\x80", "it ends inside a field (byte 1)"),
    ("ends in bytes", b"\x10\x05\x1a\x05abcd", "it ends inside a field (byte 4)"),
    ("ends in a length", b"\x1a\x85", "it ends inside a field"),
    ("absurd length", b"\x1a\xff\xff\xff\xff\x0f", "it ends inside a field"),
    ("ends in fixed64", b"\xf9\x071234567", "it ends inside a field"),
    ("ends in fixed32", b"\xfd\x07123", "it ends inside a field"),
    ("number of eleven bytes", b"\x10" + b"\x80" * 10 + b"\x00", "a number has too many bytes"),
    ("tag of six bytes", b"\x90\x80\x80\x80\x80\x00\x05", "a number has too many bytes"),
    ("length of six bytes", b"\x1a\x82\x80\x80\x80\x80\x00ab", "a number has too many bytes"),
    ("field 0", b"\x00\x05", "no field begins like this"),
    ("field 0 in a group", b"\x33\x01\x02\x03\x04\x05\x06\x07\x08\x09\x34", "no field begins like this (byte 2)"),
    ("wire type 6", b"\x16", "no field begins like this"),
    ("wire type 7", b"\x17", "no field begins like this"),
    ("tag above 32 bits", b"\x90\x80\x80\x80\x10\x05", "no field begins like this"),
    ("end of no group", b"\x14", "a group ends that did not begin"),
    ("end of another group", b"\xfb\x07\xf4\x07", "a group ends that did not begin"),
    ("group without end", b"\xfb\x07", "it ends inside a field"),
    ("deep groups", b"\xfb\x07" * 101 + b"\xfc\x07" * 101, "more than 100 messages inside one another"),
    ("text", b"\x10\x05\x0a\x02a\xff", "a text is not UTF-8 (byte 4)"),
    ("surrogate", b"\x22\x03\xed\xa0\x80", "a text is not UTF-8"),
    ("overlong text", b"\x4a\x02\xc0\x80", "a text is not UTF-8"),
    ("text beyond Unicode", b"\x22\x04\xf4\x90\x80\x80", "a text is not UTF-8"),
    ("text cut short", b"\x22\x0d12345678901\xe2\x82", "a text is not UTF-8"),
    ("in timestamp", b"\x2a\x01\x08", "it ends inside a field"),
    ("in reorg", field(20, b"\x0a\x01\xff"), "a text is not UTF-8"),
    ("in finalized", field(21, b"\x12\x05"), "it ends inside a field"),
    ("in log", field(24, b"\x12\x01\xff"), "a text is not UTF-8"),
    ("in a batch", field(23, field(1, b"\x10")), "it ends inside a field"),
    ("beside a batch's messages", field(23, b"\x10"), "it ends inside a field"),
    ("in what was replaced", field(24, b"\x12\x01\xff") + field(22, b""), "a text is not UTF-8"),
    ("in a batch that was replaced", field(23, field(1, b"\x0a\x01\xff")) + field(22, b""), "a text is not UTF-8"),
    ("in the IR", field(13, field(8, field(12, b"\x1a\x01\xff"))), "a text is not UTF-8"),
]


@pytest.mark.parametrize(("data", "why"), [case[1:] for case in NO_MESSAGES], ids=[case[0] for case in NO_MESSAGES])
def test_what_is_no_message_is_refused_with_its_place(data: bytes, why: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        hear(data, generation=1)
    assert refused.value.message.startswith("the bytes are no BlockMessage: ")
    assert why in refused.value.message
    assert all_ways(data) == "no message"


def test_as_deep_as_google_allows() -> None:
    assert hear(b"\xfb\x07" * 100 + b"\xfc\x07" * 100, generation=1)[1] is None
    deep = b""
    for _ in range(49):
        deep = field(36, field(2, deep))
    assert all_ways(deep) == "other"
    assert all_ways(field(36, field(2, field(36, field(2, deep))))) == "no message"


def texts(descriptor: Any, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """The numbers that lead to each text below a message, through no message twice."""
    found = []
    for each in descriptor.fields:
        if each.type == each.TYPE_STRING:
            found.append((*path, each.number))
        elif each.type == each.TYPE_MESSAGE and len(path) < 4:
            found += texts(each.message_type, (*path, each.number))
    return found


TEXTS = texts(BlockMessage.DESCRIPTOR)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: ".".join(map(str, path)))
def test_every_text_is_looked_at(path: tuple[int, ...]) -> None:
    data = b"\xff"
    for number in reversed(path):
        data = field(number, data)
    with pytest.raises(MessageRefused):
        hear(data, generation=1)
    assert all_ways(data) == "no message"


# ---- beside Google's protobuf ------------------------------------------------------------------------------------------------

NUMBER = st.sampled_from([*range(1, 15), *NUMBERS.values(), 15, 16, 19, 38, 2**29 - 1])
VALUE = st.one_of(st.integers(0, 12), st.sampled_from([2**63, 2**64 - 1, 2**31, 2**32, 10**9, 9_223_372_036]))
PLAIN = st.sampled_from([b"", b"bitcoin", b"ethereum", HASH, PARENT, bytes(33), bytes(64), bytes(65), b"\xc3\xbc", b"\xff"])


def scalar(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def group(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 3) + content + varint(number << 3 | 4)


def joined(parts: list[bytes]) -> bytes:
    return b"".join(parts)


def messages() -> st.SearchStrategy[bytes]:
    leaf = st.one_of(st.builds(scalar, NUMBER, VALUE), st.builds(field, NUMBER, PLAIN), st.just(b"\xf9\x0712345678"))
    flat = st.lists(leaf, max_size=6).map(joined)
    return st.recursive(
        flat,
        lambda inner: st.lists(st.one_of(leaf, st.builds(field, NUMBER, inner), st.builds(group, NUMBER, inner)), max_size=8).map(
            joined
        ),
        max_leaves=12,
    )


@settings(max_examples=400)
@given(messages())
@example(b"")
def test_any_fields_in_any_order_mean_what_google_reads(data: bytes) -> None:
    all_ways(data)


@settings(max_examples=100)
@given(st.lists(messages(), max_size=5))
def test_batches_mean_what_google_reads(items: list[bytes]) -> None:
    all_ways(b"".join(field(23, field(1, item)) for item in items))


def test_seeds_and_their_mutations_mean_what_google_reads() -> None:
    chance = random.Random(20)
    known = list(seeds().values())
    seen = {all_ways(each) for each in known}
    for _ in range(4000):
        data = bytearray(chance.choice(known) + chance.choice([b"", chance.choice(known)]))
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(data) + 1)
            match chance.randrange(3):
                case 0:
                    data[place : place + 1] = chance.randbytes(1)
                case 1:
                    del data[place : place + chance.randrange(1, 5)]
                case _:
                    data[place:place] = chance.randbytes(chance.randrange(1, 4))
        seen.add(all_ways(bytes(data)))
    assert seen == {"frames", "other", "no message", "not allowed"}


@pytest.mark.parametrize("name", sorted(seeds()))
def test_every_cut_means_what_google_reads(name: str) -> None:
    data = seeds()[name]
    for end in range(len(data)):
        all_ways(data[:end])
