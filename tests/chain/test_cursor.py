"""Cursors: every one comes back as it was, nothing else is taken for one, and those of every release stay readable."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervm_rt.chain.cursor import KEY_BYTES, ChainPlace, Cursor, Sealer
from supervm_rt.errors import CursorError, CursorForged, CursorMalformed, CursorOfAnotherStore, CursorTooNew
from supervm_rt.model.chain import BlockRef, Step

RELEASES = sorted((Path(__file__).parent / "cursors").glob("*.json"))
SEALER = Sealer(bytes(range(KEY_BYTES)))
BLOCK = BlockRef(bytes(range(32)), 840_000)
PLAIN = Cursor(1_700_001, (ChainPlace("bitcoin", final=BlockRef(b"\x07" * 32, 839_900)),), Step.NEW, 0, BLOCK)

refs = st.builds(BlockRef, st.binary(max_size=64), st.integers(0, 2**63 - 1))
places = st.builds(
    ChainPlace,
    st.text(min_size=1, max_size=50),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.none() | refs,
    st.booleans(),
    st.none() | refs,
)


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    chains = tuple(draw(st.lists(places, min_size=1, max_size=5)))
    position = draw(st.integers(0, 2**63 - 1))
    if draw(st.booleans()):
        return Cursor(position, chains)
    return Cursor(position, chains, draw(st.sampled_from(Step)), draw(st.integers(0, len(chains) - 1)), draw(refs))


@given(cursors())
def test_a_cursor_comes_back_as_it_was(cursor: Cursor) -> None:
    text = SEALER.seal(cursor)
    assert SEALER.open(text) == cursor
    assert text.isascii()
    assert not text.startswith("-"), "it would be an option on a command line"


def test_every_single_bit_change_is_refused() -> None:
    text = SEALER.seal(PLAIN)
    for place in range(len(text)):
        for bit in range(8):
            changed = text[:place] + chr(ord(text[place]) ^ 1 << bit) + text[place + 1 :]
            with pytest.raises(CursorError):
                SEALER.open(changed)
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            with pytest.raises(CursorError):
                SEALER.open(base64.urlsafe_b64encode(flipped).rstrip(b"=").decode())


@pytest.mark.parametrize("length", range(0, len(SEALER.seal(PLAIN)), 1))
def test_a_cursor_cut_short_is_refused(length: int) -> None:
    with pytest.raises(CursorMalformed):
        SEALER.open(SEALER.seal(PLAIN)[:length])


@pytest.mark.parametrize("text", ["", " ", "nonsense", "AQ==", "AQ\n", "ä", "\0", "A" * 70_000, SEALER.seal(PLAIN) + "AAAA"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(CursorMalformed):
        SEALER.open(text)


def test_each_kind_of_wrong_cursor_has_its_own_error() -> None:
    text = SEALER.seal(PLAIN)
    with pytest.raises(CursorOfAnotherStore):
        Sealer(bytes(KEY_BYTES)).open(text)
    data = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    data[20] ^= 1
    with pytest.raises(CursorForged):
        SEALER.open(base64.urlsafe_b64encode(data).rstrip(b"=").decode())
    data[0] = 2
    with pytest.raises(CursorTooNew):
        SEALER.open(base64.urlsafe_b64encode(data).rstrip(b"=").decode())


def test_a_key_has_its_length() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(b"short")


@pytest.mark.parametrize("path", RELEASES, ids=[path.stem for path in RELEASES])
def test_cursors_of_every_release_stay_readable(path: Path) -> None:
    """The files are never edited: a release adds its own."""
    document: dict[str, Any] = json.loads(path.read_text())
    sealer = Sealer(bytes.fromhex(document["key"]))
    for entry in document["cursors"]:
        assert sealer.open(entry["text"]) == as_cursor(entry), entry["what"]


def test_there_are_cursors_of_releases() -> None:
    assert [path.stem for path in RELEASES] == ["0.1.0"]


def as_cursor(entry: dict[str, Any]) -> Cursor:
    """The cursor that a file describes."""

    def block(value: dict[str, Any] | None) -> BlockRef | None:
        return None if value is None else BlockRef(bytes.fromhex(value["hash"]), value["height"])

    chains = tuple(
        ChainPlace(
            place["chain"],
            place["after"],
            place["floor"],
            block(place["final"]),
            place["catching_up"],
            block(place["reached"]),
        )
        for place in entry["chains"]
    )
    step = None if entry["step"] is None else Step(entry["step"])
    return Cursor(entry["position"], chains, step, entry["chain"], block(entry["block"]))
