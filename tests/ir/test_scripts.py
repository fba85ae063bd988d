"""Kinds of scripts, at the edges that bitcoind's solver has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervm_rt.ir.scripts import ScriptType, script_type

SHORT = "21" + "02" + "11" * 32
LONG = "41" + "04" + "22" * 64


def keys(count: int, push: str = SHORT) -> str:
    return push * count


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("76a914" + "11" * 20 + "88ac", "pubkeyhash"),
        ("a914" + "11" * 20 + "87", "scripthash"),
        ("0014" + "11" * 20, "witness_v0_keyhash"),
        ("0020" + "11" * 32, "witness_v0_scripthash"),
        ("0019" + "11" * 25, "nonstandard"),
        ("5120" + "11" * 32, "witness_v1_taproot"),
        ("511f" + "11" * 31, "witness_unknown"),
        ("5220" + "11" * 32, "witness_unknown"),
        ("60024e73", "witness_unknown"),
        ("51024e73", "anchor"),
        ("51024e74", "witness_unknown"),
        ("610211aa", "nonstandard"),
        ("5129" + "11" * 41, "nonstandard"),
        (SHORT + "ac", "pubkey"),
        (LONG + "ac", "pubkey"),
        ("21" + "06" + "11" * 32 + "ac", "nonstandard"),
        ("41" + "06" + "22" * 64 + "ac", "pubkey"),
        ("41" + "02" + "22" * 64 + "ac", "nonstandard"),
        ("4c21" + "02" + "11" * 32 + "ac", "nonstandard"),
        ("6a", "nulldata"),
        ("6a5051604c0161", "nulldata"),
        ("6a61", "nonstandard"),
        ("6a02aa", "nonstandard"),
        ("6a4d", "nonstandard"),
        ("6a4e01000000", "nonstandard"),
        ("6a4e01000000aa", "nulldata"),
        ("51" + keys(1) + "51ae", "multisig"),
        ("52" + keys(2) + LONG + "53ae", "multisig"),
        ("51" + "4c" + SHORT + "51ae", "multisig"),
        ("60" + keys(16) + "60ae", "multisig"),
        ("0111" + keys(17) + "0111ae", "multisig"),
        ("51" + keys(20) + "0114ae", "multisig"),
        ("51" + keys(20, "4e21000000" + SHORT[2:]) + "0114ae", "multisig"),
        ("51" + keys(21) + "0115ae", "nonstandard"),
        ("0101" + keys(1) + "51ae", "nonstandard"),
        ("51" + keys(17) + "4c0111ae", "nonstandard"),
        ("00" + keys(1) + "51ae", "nonstandard"),
        ("52" + keys(1) + "51ae", "nonstandard"),
        ("51" + keys(1) + "52ae", "nonstandard"),
        ("51" + keys(2) + "51ae", "nonstandard"),
        ("5100ae", "nonstandard"),
        ("5151ae", "nonstandard"),
        ("51" + keys(1) + "51af", "nonstandard"),
        ("51" + keys(1) + "51ae" + "05ae", "nonstandard"),
        ("51" + keys(1) + "51" + "01ae", "nonstandard"),
        ("ae", "nonstandard"),
        ("", "nonstandard"),
    ],
)
def test_kind(script: str, kind: str) -> None:
    assert script_type(bytes.fromhex(script)) == ScriptType(kind)


@given(
    st.binary(max_size=60) | st.binary(max_size=60).map(b"\x6a".__add__) | st.binary(max_size=60).map(lambda data: data + b"\xae")
)
def test_any_script_has_a_kind(script: bytes) -> None:
    assert script_type(script) in ScriptType
