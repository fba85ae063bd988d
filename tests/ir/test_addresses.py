"""Addresses: the published vectors of BIP 173 and BIP 350, the five networks, and every way to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervm_rt.errors import ConfigurationError
from supervm_rt.ir.addresses import AddressError, address_of, script_of
from supervm_rt.ir.networks import NETWORKS

TAPROOT = "5120000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433"

VALID = [
    ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "main", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    (
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "testnet3",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (
        "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
        "main",
        "5128751e76e8199196d454941c45d1b3a323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6",
    ),
    ("BC1SW50QGDZ25J", "main", "6002751e"),
    ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "main", "5210751e76e8199196d454941c45d1b3a323"),
    (
        "tb1qqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesrxh6hy",
        "signet",
        "0020000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
    ),
    ("tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c", "testnet4", TAPROOT),
    (
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "main",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ),
    ("bc1pfeessrawgf", "main", "51024e73"),
    ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "main", "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac"),
    ("1111111111111111111114oLvT2", "main", "76a914" + "00" * 20 + "88ac"),
    ("3P14159f73E4gFr7JterCCQh9QjiTjiZrG", "main", "a914e9c3dd0c07aac76179ebc76a6c78d4d67c6c160a87"),
    ("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "testnet3", "76a914243f1394f44554f4ce3fd68649c19adc483ce92488ac"),
    ("2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc", "testnet4", "a9144e9f39ca4688ff102128ea4ccda34105324305b087"),
]


@pytest.mark.parametrize(("address", "network", "script"), VALID)
def test_script_and_address_name_each_other(address: str, network: str, script: str) -> None:
    assert script_of(address, network).hex() == script
    shown = address.lower() if address.lower().startswith(("bc1", "tb1")) else address
    assert address_of(bytes.fromhex(script), network) == shown


INVALID = [
    # BIP 350
    ("tc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq5zuyut", "no address"),
    ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd", "checksum"),
    ("BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL", "checksum"),
    ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh", "checksum"),
    ("bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4", "do not occur"),
    ("BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R", "witness version 17"),
    ("bc1pw5dgrnzv", "1 bytes are no program"),
    ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav", "41 bytes are no program"),
    ("BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P", "16 bytes are no program of witness version 0"),
    ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v07qwwzcrf", "padding"),
    ("bc1gmk9yu", "too short"),
    # 256 bits, four to fill up: the last is not zero
    ("bc1pqqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc034zlwws", "padding"),
    # BIP 173
    ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "checksum"),
    ("bc1zw508d6qejxtdg4y5r3zarvaryvqyzf3du", "checksum"),
    ("bc1qW508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "upper and lower case"),
    ("bc1" + "q" * 88, "90 characters"),
    # base58
    ("", "0"),
    ("1" * 91, "91"),
    ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb", "checksum"),
    ("1A1zP1eP5QGefi2DMPTfTL5SLmv7Divf0a", "'0' does not occur"),
    ("1111", "checksum"),
    ("3QJmnh", "checksum"),
    ("1Wh4bh", "0 bytes instead of 20"),
    ("not an address", "does not occur"),
    ("\u0661A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "does not occur"),
]


@pytest.mark.parametrize(("address", "said"), INVALID)
def test_what_is_no_address_says_why(address: str, said: str) -> None:
    with pytest.raises(AddressError, match=said) as caught:
        script_of(address, "main")
    assert isinstance(caught.value, ValueError)


def kinds(payload: bytes) -> list[bytes]:
    return [
        b"\x76\xa9\x14" + payload[:20] + b"\x88\xac",
        b"\xa9\x14" + payload[:20] + b"\x87",
        b"\x00\x14" + payload[:20],
        b"\x00\x20" + payload,
        b"\x51\x20" + payload,
        b"\x60\x02" + payload[:2],
        b"\x52\x28" + payload + payload[:8],
    ]


@given(st.binary(min_size=32, max_size=32), st.sampled_from(sorted(NETWORKS)))
def test_every_kind_comes_back_on_every_network(payload: bytes, network: str) -> None:
    for script in kinds(payload):
        address = address_of(script, network)
        assert address is not None
        assert script_of(address, network) == script


STARTS = {"main": ("1", "3", "bc1"), "regtest": ("mn", "2", "bcrt1")} | dict.fromkeys(
    ("testnet3", "testnet4", "signet"), ("mn", "2", "tb1")
)


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_an_address_of_another_network_is_told(network: str) -> None:
    for script, starts in zip(kinds(b"\x17" * 32)[:3], STARTS[network], strict=True):
        address = address_of(script, network)
        assert address is not None
        assert address[0] in starts or address.startswith(starts)
        for other in NETWORKS:
            if STARTS[other] == STARTS[network] or (STARTS[other][1] == STARTS[network][1] and len(starts) < 3):
                assert script_of(address, other) == script
            else:
                with pytest.raises(AddressError, match=f"not an address of the network {other}"):
                    script_of(address, other)


@pytest.mark.parametrize(
    "script",
    [
        "",
        "51",
        "6a",
        "6a0b68656c6c6f20776f726c64",
        "2102" + "11" * 32 + "ac",
        "5121" + "02" * 33 + "51ae",
        "0015" + "11" * 21,
        "00021111",
        "5101" + "11",
        "5129" + "11" * 41,
        "6102" + "1111",
        "a914" + "11" * 20 + "88",
        "76a914" + "11" * 20 + "88ad",
        "5120" + "11" * 31,
    ],
)
def test_scripts_without_an_address(script: str) -> None:
    assert address_of(bytes.fromhex(script), "main") is None


@given(st.text(max_size=100), st.sampled_from(sorted(NETWORKS)))
def test_any_text_is_an_address_or_an_error(text: str, network: str) -> None:
    try:
        script = script_of(text, network)
    except AddressError:
        return
    assert address_of(script, network) in {text, text.lower()}


def test_unknown_network() -> None:
    with pytest.raises(ConfigurationError, match="regtest"):
        address_of(b"", "moon")
    with pytest.raises(ConfigurationError, match="regtest"):
        script_of("", "moon")
