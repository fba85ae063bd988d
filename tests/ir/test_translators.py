"""The translators as a plugin's host meets them: by family and network."""

from __future__ import annotations

import hashlib

import pytest

from supervm_rt.errors import ConfigurationError
from supervm_rt.ir.decode import decode_block
from supervm_rt.ir.dev import DevTranslator
from supervm_rt.ir.registry import supported_families, translator_for
from supervm_rt.ir.translator import BlockRefused, RawBlock
from supervm_rt.model.chain import ForkMode, Reason

GENESIS = {
    "main": "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    "testnet3": "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
    "testnet4": "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
    "signet": "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
    "regtest": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
}
TIMES = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"


@pytest.mark.parametrize("network", GENESIS)
def test_genesis_is_built_in_and_sound(network: str) -> None:
    translator = translator_for("bitcoin", {"network": network})
    assert translator.network == network
    assert translator.genesis is not None
    assert translator.genesis_hash is not None
    translated = translator.translate(RawBlock(translator.genesis))
    assert translated.hash.hex() == translator.genesis_hash.hex() == GENESIS[network]
    assert (translated.parent, translated.root_height) == (bytes(32), 0)
    block = decode_block(translated.ir)
    assert [output.amount for output in block.transactions[0].outputs] == [50 * 10**8]
    assert block.transactions[0].coinbase
    assert (translated.transaction_ids.hex() == TIMES) == (network != "testnet4")


def test_bitcoin_defaults() -> None:
    translator = translator_for("bitcoin", {"unrelated": 1})
    assert (translator.family, translator.network) == ("bitcoin", "main")
    assert (translator.default_mode, translator.default_final_depth) == (ForkMode.HEAVIEST, 100)


def test_every_family_that_is_named_has_a_translator() -> None:
    assert [translator_for(family, {}).family for family in supported_families()] == list(supported_families())


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("ethereum", {}, "bitcoin, dev"),
        ("", {}, "bitcoin, dev"),
        ("bitcoin", {"network": "mainnet"}, "main, testnet3, testnet4, signet, regtest"),
        ("bitcoin", {"network": 3}, "as text"),
        ("bitcoin", {"network": None}, "as text"),
    ],
)
def test_unknown_names_say_what_there_is(family: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        translator_for(family, settings)


def test_dev_believes_the_frame() -> None:
    translator = translator_for("dev", {})
    assert (translator.default_mode, translator.default_final_depth, translator.genesis) == (ForkMode.FOLLOW, None, None)
    told = translator.translate(RawBlock(b"payload", hash_=b"b1", parent=b"a0", height=7, time=3_999_999_999, weight=12))
    assert (told.hash, told.parent, told.height, told.time, told.weight) == (b"b1", b"a0", 7, 3, 12)
    assert (told.root_height, told.transaction_ids, told.content) == (None, b"", hashlib.sha256(b"payload").digest())
    block = decode_block(told.ir)
    assert (block.family, block.hash, block.parent, block.time, len(block.transactions)) == ("dev", b"b1", b"a0", 3, 0)
    least = translator.translate(RawBlock(b"", hash_=b"b" * 64, parent=b"a"))
    assert (least.height, least.time, least.weight) == (None, 0, 1)


@pytest.mark.parametrize(("hash_", "parent"), [(b"", b"p"), (b"h" * 65, b"p"), (b"h", b""), (b"h", b"p" * 65)])
def test_dev_needs_to_be_told_hash_and_parent(hash_: bytes, parent: bytes) -> None:
    with pytest.raises(BlockRefused) as caught:
        DevTranslator().translate(RawBlock(b"", hash_=hash_, parent=parent))
    assert caught.value.reason is Reason.MALFORMED
    assert caught.value.hash == (hash_ if len(hash_) == 1 else None)


def test_dev_takes_times_before_the_epoch() -> None:
    assert DevTranslator().translate(RawBlock(b"", hash_=b"h", parent=b"p", time=-1)).time == -1
