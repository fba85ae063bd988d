"""Faults of the Bitcoin parser and of what scripts and addresses are called."""

from __future__ import annotations

from faults.fault import Fault

PARSER = "src/supervm_rt/ir/_native/bitcoin.c"
ADDRESSES = "src/supervm_rt/ir/addresses.py"

RULES = ("pytest", "tests/ir/test_bitcoin_rules.py", "-k", "not any_ and not spliced and not of_all_bytes")
ADDRESS_TESTS = ("pytest", "tests/ir/test_addresses.py")

FAULTS = (
    Fault(
        "merkle-root-not-checked",
        "any transactions fit any header",
        PARSER,
        "if (memcmp(columns->leaves, block->data + 36, BITCOIN_HASH_BYTES) != 0)",
        "if (memcmp(columns->leaves, block->data + 36, 0) != 0)",
        RULES,
    ),
    Fault(
        "mutated-twin-accepted",
        "repeated transactions that leave the Merkle root unchanged pass (CVE-2012-2459)",
        PARSER,
        "    if (repeated)\n",
        "    if (repeated && totals->transactions == 0)\n",
        RULES,
    ),
    Fault(
        "proof-of-work-not-checked",
        "a hash above its target passes",
        PARSER,
        "return is_above(block->hash, block->target) ? BITCOIN_HIGH_HASH : BITCOIN_SOUND;",
        "return BITCOIN_SOUND;",
        RULES,
    ),
    Fault(
        "target-above-the-networks-limit",
        "a block may choose its own difficulty",
        PARSER,
        "if (!expand_target(get32(block->data + 72), block->target) || is_above(block->target, block->pow_limit))",
        "if (!expand_target(get32(block->data + 72), block->target))",
        RULES,
    ),
    Fault(
        "witness-commitment-not-checked",
        "any witness fits the coinbase's commitment",
        PARSER,
        "return memcmp(commitment, coinbase->commitment, sizeof commitment) == 0 ? BITCOIN_SOUND : BITCOIN_COMMITMENT;",
        "return BITCOIN_SOUND;",
        RULES,
    ),
    Fault(
        "long-form-of-65535-accepted",
        "a number that would fit a shorter form passes, at the very bound",
        PARSER,
        "least = UINT64_C(1) << 16;",
        "least = (UINT64_C(1) << 16) - 1;",
        RULES,
    ),
    Fault(
        "bytes-behind-the-block-accepted",
        "one hash has many byte strings",
        PARSER,
        "    if (cursor->at != cursor->end)\n        cursor->fault = BITCOIN_TRAILING;\n    else if ",
        "    if ",
        RULES,
    ),
    Fault(
        "weight-limit-off-by-one",
        "the heaviest sound block is refused",
        PARSER,
        "3 * (uint64_t)totals->stripped_bytes + cursor->end > BITCOIN_MAX_WEIGHT",
        "3 * (uint64_t)totals->stripped_bytes + cursor->end >= BITCOIN_MAX_WEIGHT",
        RULES,
    ),
    Fault(
        "reads-one-byte-too-far",
        "the last byte may lie behind the block",
        PARSER,
        "if (length > cursor->end - cursor->at) {",
        "if (length > cursor->end - cursor->at + 1) {",
        RULES,
    ),
    Fault(
        "second-coinbase-accepted",
        "a block makes money twice",
        PARSER,
        "if (totals->coinbases > 1)",
        "if (totals->coinbases > 2)",
        RULES,
    ),
    Fault(
        "height-in-the-coinbase-too-short",
        "a small height in a long form counts (BIP 34)",
        PARSER,
        "if (script[length] & 0x80 || height <= 16)",
        "if (script[length] & 0x80 || height < 16)",
        RULES,
    ),
    Fault(
        "claimed-hash-believed",
        "a block announced under another id passes",
        "src/supervm_rt/ir/bitcoin.py",
        "if claims.hash and claims.hash != hash_:",
        "if claims.hash and len(claims.hash) != len(hash_):",
        RULES,
    ),
    Fault(
        "taproot-address-with-the-old-checksum",
        "an address of version 1 ends as one of version 0 (BIP 350)",
        ADDRESSES,
        "    final = _BECH32M_FINAL if version else _BECH32_FINAL\n",
        "    final = _BECH32_FINAL\n",
        ADDRESS_TESTS,
    ),
    Fault(
        "mistyped-address-accepted",
        "the checksum of a base58 address is not compared",
        ADDRESSES,
        "if len(data) < 5 or data[-4:] != _checksum(data[:-4]):",
        "if len(data) < 5:",
        ADDRESS_TESTS,
    ),
    Fault(
        "padding-of-an-address-ignored",
        "one script has many addresses",
        ADDRESSES,
        "if surplus > 4 or number & (1 << surplus) - 1:",
        "if surplus > 4:",
        ADDRESS_TESTS,
    ),
    Fault(
        "keyless-multisig",
        "a script that asks for more signatures than it has keys is called multisig",
        "src/supervm_rt/ir/scripts.py",
        "not 1 <= threshold <= count <= _MAX_KEYS",
        "not 1 <= count <= _MAX_KEYS",
        ("pytest", "tests/ir/test_scripts.py"),
    ),
)
