"""The five Bitcoin networks: what differs between them, as far as blocks and addresses are concerned."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from supervm_rt.errors import ConfigurationError

_TIMES_MESSAGE = b"The Times 03/Jan/2009 Chancellor on brink of second bailout for banks"
_TIMES_KEY = bytes.fromhex(
    "04678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5f"
)
_GENESIS_AMOUNT = 50 * 100_000_000


@dataclass(frozen=True, slots=True)
class Network:
    """One network."""

    name: str
    power_limit: int
    """The highest target a block may have."""
    segwit_height: int
    """The first height at which blocks may carry witness data; 0: always."""
    key_version: int
    """First byte of a base58 address of a key hash (P2PKH)."""
    script_version: int
    """First byte of a base58 address of a script hash (P2SH)."""
    prefix: str
    """The human-readable part of a bech32 address."""
    genesis: bytes
    """The raw first block."""
    genesis_hash: bytes


def _genesis(*, time: int, bits: int, nonce: int, message: bytes = _TIMES_MESSAGE, key: bytes = _TIMES_KEY) -> bytes:
    """The raw block: a header and one coinbase, whose script holds a number, another one, and the message."""
    push = bytes([len(message)]) if len(message) <= 75 else bytes([0x4C, len(message)])
    script = bytes.fromhex("04ffff001d0104") + push + message
    guard = bytes([len(key)]) + key + b"\xac"
    spent = bytes(32) + b"\xff" * 4 + bytes([len(script)]) + script + b"\xff" * 4
    coinbase = struct.pack("<I", 1) + b"\x01" + spent + b"\x01" + struct.pack("<Q", _GENESIS_AMOUNT)
    coinbase += bytes([len(guard)]) + guard + bytes(4)
    return struct.pack("<i32s32sIII", 1, bytes(32), _double_sha256(coinbase), time, bits, nonce) + b"\x01" + coinbase


def _double_sha256(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def _network(
    name: str, *, power_limit: int, segwit_height: int, versions: tuple[int, int], prefix: str, genesis: bytes
) -> Network:
    genesis_hash = _double_sha256(genesis[:80])[::-1]
    return Network(name, power_limit, segwit_height, versions[0], versions[1], prefix, genesis, genesis_hash)


_MAIN_LIMIT = (1 << 224) - 1

NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        _network(
            "main",
            power_limit=_MAIN_LIMIT,
            segwit_height=481_824,
            versions=(0, 5),
            prefix="bc",
            genesis=_genesis(time=1_231_006_505, bits=0x1D00FFFF, nonce=2_083_236_893),
        ),
        _network(
            "testnet3",
            power_limit=_MAIN_LIMIT,
            segwit_height=834_624,
            versions=(111, 196),
            prefix="tb",
            genesis=_genesis(time=1_296_688_602, bits=0x1D00FFFF, nonce=414_098_458),
        ),
        _network(
            "testnet4",
            power_limit=_MAIN_LIMIT,
            segwit_height=0,
            versions=(111, 196),
            prefix="tb",
            genesis=_genesis(
                time=1_714_777_860,
                bits=0x1D00FFFF,
                nonce=393_743_547,
                message=b"03/May/2024 000000000000000000001ebd58c244970b3aa9d783bb001011fbe8ea8e98e00e",
                key=bytes(33),
            ),
        ),
        _network(
            "signet",
            power_limit=0x377AE << 216,
            segwit_height=0,
            versions=(111, 196),
            prefix="tb",
            genesis=_genesis(time=1_598_918_400, bits=0x1E0377AE, nonce=52_613_770),
        ),
        _network(
            "regtest",
            power_limit=(1 << 255) - 1,
            segwit_height=0,
            versions=(111, 196),
            prefix="bcrt",
            genesis=_genesis(time=1_296_688_602, bits=0x207FFFFF, nonce=2),
        ),
    )
}


def network_of(name: str) -> Network:
    """The network of this name. Raises ConfigurationError, naming those there are."""
    try:
        return NETWORKS[name]
    except KeyError:
        raise ConfigurationError(f"{name!r} is not a Bitcoin network", remedy=f"use one of {', '.join(NETWORKS)}") from None
