"""The first inputs of the byte fuzzers are what they are called, and the references judge them as the project does."""

from __future__ import annotations

import pytest

from fuzz.bitcoin.seeds import inputs, made_blocks, sample_blocks
from fuzz.bitcoin_differential import reference
from fuzz.manifest.documents import CONFIGURATION_FIELDS, FIELDS, document
from supervm_rt.errors import ManifestError
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.translator import BlockRefused, RawBlock
from supervm_rt.trust.documents import read_yaml
from supervm_rt.trust.manifest import parse_manifest

REGTEST = BitcoinTranslator("regtest")
ACCEPTED = {"plain", "witness", "old", "long-sizes", "many", "empty-outputs"}


def _reason(raw: bytes) -> str:
    try:
        REGTEST.translate(RawBlock(raw))
    except BlockRefused as refused:
        return str(refused.reason)
    return ""


@pytest.mark.parametrize("name", made_blocks())
def test_made_blocks_are_judged_alike(name: str) -> None:
    raw = made_blocks()[name].raw()
    assert _reason(raw) == reference.verdict(reference.read(raw))
    if not name.startswith("height-"):
        assert (_reason(raw) == "") == (name in ACCEPTED)


def test_blocks_of_the_sample_chain_are_accepted() -> None:
    blocks = sample_blocks()
    assert len(blocks) > 10
    assert {_reason(raw) for raw in blocks} == {""}


def test_every_reason_of_a_refusal_is_among_the_first_inputs() -> None:
    reasons = {_reason(data[4:]) for data in inputs().values()}
    assert reasons == {
        "",
        "malformed",
        "high-hash",
        "bad-txnmrklroot",
        "duplicate-txs",
        "bad-witness-merkle-match",
    }


def test_most_made_documents_are_documents() -> None:
    parse_manifest(document(FIELDS, b"\0"))
    assert read_yaml(document(CONFIGURATION_FIELDS, b"\0")) == {"store": "a.db", "plugins": []}
    with pytest.raises(ManifestError, match="missing key"):
        parse_manifest(document(FIELDS, b"\xff\2\0"))
