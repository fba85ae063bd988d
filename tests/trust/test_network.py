"""What the entries of network.allow and network.listen mean (clauses M1, S3)."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervm_rt import NetworkPolicy
from supervm_rt.errors import ConfigurationError, ManifestError
from supervm_rt.model.manifest import Manifest, Security
from supervm_rt.model.network import Network
from supervm_rt.trust.manifest import parse_manifest
from supervm_rt.trust.network import NetworkGrant, is_special, parse_address, parse_allowed, parse_listened, parse_name
from supervm_rt.trust.policy import Policy, PolicyLevel

MANIFEST = 'id: org.example.p\nname: p\nversion: "1.0.0"\nchain: dev\ncapabilities: []\nbinary: p.so\n'


def grant(*allow: str, operator: list[str] | None = None) -> NetworkGrant:
    return NetworkGrant(Network(allow=tuple(map(parse_allowed, allow))), NetworkPolicy(allow=operator))


def reaches(granted: NetworkGrant, host: str, port: int, *, at: str = "") -> bool:
    """``at``: what the host name resolves to."""
    address = parse_address(host)
    if address is not None:
        return not granted.why_not_dialled(address, port)
    name, found = parse_name(host), parse_address(at)
    assert name is not None
    assert found is not None
    return not granted.why_not_resolved(name, port) and not granted.why_not_dialled(found, port, name)


@pytest.mark.parametrize(
    ("entry", "host", "port", "at", "reached"),
    [
        ("node.example.org:8333", "NODE.example.org.", 8333, "8.8.8.8", True),
        ("node.example.org:8333", "node.example.org", 8334, "8.8.8.8", False),
        ("node.example.org:8333", "anode.example.org", 8333, "8.8.8.8", False),
        ("node.example.org:8333", "8.8.8.8", 8333, "", False),
        ("*.example.org:443", "a.b.example.org", 443, "8.8.8.8", True),
        ("*.example.org:443", "example.org", 443, "8.8.8.8", False),
        ("*.example.org:443", "badexample.org", 443, "8.8.8.8", False),
        ("*:443", "anything.test", 443, "8.8.8.8", True),
        ("*:443", "8.8.8.8", 443, "", False),
        ("8.8.8.0/24:*", "8.8.8.8", 1, "", True),
        ("8.8.8.0/24:*", "8.8.9.8", 1, "", False),
        ("8.8.8.0/24:*", "any.test", 1, "8.8.8.8", False),
        ("8.8.8.8:8332-8334", "8.8.8.8", 8334, "", True),
        ("8.8.8.8:8332-8334", "8.8.8.8", 8335, "", False),
        ("[2600::1]:443", "2600::1", 443, "", True),
        ("[2600::/16]:443", "2600::2", 443, "", True),
        ("0.0.0.0/0:443", "8.8.8.8", 443, "", True),
        ("0.0.0.0/0:443", "127.0.0.1", 443, "", False),
        ("0.0.0.0/0:443", "10.0.0.1", 443, "", False),
        ("[::/0]:443", "::1", 443, "", False),
        ("[::/0]:443", "::ffff:8.8.8.8", 443, "", False),
        ("10.0.0.0/8:443", "10.0.0.1", 443, "", True),
        ("127.0.0.1:443", "127.0.0.1", 443, "", True),
        ("127.0.0.1:443", "127.0.0.2", 443, "", False),
        ("127.0.0.1:443", "::ffff:127.0.0.1", 443, "", False),
        ("[::ffff:127.0.0.1]:443", "::ffff:127.0.0.1", 443, "", True),
        ("node.example.org:8333", "node.example.org", 8333, "10.0.0.1", False),
        ("*:*", "node.example.org", 8333, "::1", False),
        ("*:*", "localhost", 8333, "127.0.0.1", False),
        ("localhost:8333", "localhost", 8333, "127.0.0.1", True),
        ("localhost:8333", "localhost", 8333, "::1", True),
        ("localhost:8333", "localhost", 8333, "10.0.0.1", False),
        ("localhost:8333", "127.0.0.1", 8333, "", False),
    ],
)
def test_what_an_entry_covers(entry: str, host: str, port: int, at: str, reached: bool) -> None:
    assert reaches(grant(entry), host, port, at=at) is reached


def test_a_name_and_the_address_that_it_may_resolve_to_are_two_entries() -> None:
    granted = grant("node.internal:8333", "10.0.0.0/8:8333")
    assert reaches(granted, "node.internal", 8333, at="10.1.1.1")
    assert not reaches(granted, "node.internal", 8333, at="192.168.1.1")
    assert not reaches(granted, "other.internal", 8333, at="10.1.1.1")


def test_the_operator_can_only_narrow() -> None:
    assert reaches(grant("*:*", operator=["node.test:1"]), "node.test", 1, at="8.8.8.8")
    assert not reaches(grant("*:*", operator=["node.test:1"]), "other.test", 1, at="8.8.8.8")
    assert reaches(grant("*:*", operator=["8.8.8.0/24:1"]), "node.test", 1, at="8.8.8.8")
    assert not reaches(grant("*:*", operator=["8.8.8.0/24:1"]), "node.test", 1, at="8.8.4.4")
    assert not reaches(grant("node.test:1", operator=["*:*", "0.0.0.0/0:*"]), "other.test", 1, at="8.8.8.8")
    assert not reaches(grant("*:*", "127.0.0.1:*", operator=["*:*"]), "node.test", 1, at="127.0.0.1")
    assert not grant("*:*", operator=[])
    assert not grant(operator=["*:*"])
    assert grant("*:*")


@given(st.ip_addresses())
def test_no_wide_entry_reaches_a_special_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    granted = grant("*:*", "0.0.0.0/0:*", "[::/0]:*")
    assert bool(granted.why_not_dialled(address, 80)) is is_special(address)
    assert bool(granted.why_not_dialled(address, 80, "node.test")) is is_special(address)


@given(
    st.sampled_from(["127.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16", "169.254.0.0/16", "224.0.0.0/4", "fc00::/7", "fe80::/10"]),
    st.data(),
)
def test_every_address_of_a_private_range_is_special(text: str, data: st.DataObject) -> None:
    network = ipaddress.ip_network(text)
    assert is_special(network[data.draw(st.integers(0, network.num_addresses - 1))])


@given(st.text(max_size=40))
def test_reading_an_entry_ends_in_one_or_in_an_error(text: str) -> None:
    for parse in (parse_allowed, parse_listened):
        try:
            entry = parse(text)
        except ValueError as error:
            assert str(error)
        else:
            assert bool(entry.name) is (entry.addresses is None)
            assert 0 <= entry.first_port <= entry.last_port <= 65_535


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("example.org", "not of the form HOST:PORT"),
        ("example.org:", "not of the form HOST:PORT"),
        (":80", "not of the form HOST:PORT"),
        ("example.org:http", "not of the form HOST:PORT"),
        ("example.org:0", "nobody can be reached at port 0"),
        ("example.org:70000", "no ports"),
        ("example.org:9-8", "no ports"),
        ("2001:db8::1:80", "in brackets"),
        ("[2001:db8::1]", "in brackets"),
        ("[example.org]:80", "brackets are for IPv6"),
        ("10.0.0.1/8:80", "has host bits set"),
        ("10.0.0:80", "10.0.0"),
        ("1.2.3.4.5:80", "1.2.3.4.5"),
        ("exämple.org:80", "neither a host name"),
        ("*.*.org:80", "neither a host name"),
        ("a*.org:80", "neither a host name"),
        ("http://example.org:80", "in brackets"),
        ("fe80::1%eth0:80", "in brackets"),
        ("[fe80::1%eth0]:80", "neither a host name"),
    ],
)
def test_what_is_no_entry_is_named(entry: str, why: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(f'{MANIFEST}network: {{allow: ["*:1", "{entry}"]}}\n'.encode())
    assert "network.allow[1]" in str(caught.value)
    assert entry in str(caught.value)
    assert why in str(caught.value)


def test_only_addresses_can_be_listened_on() -> None:
    with pytest.raises(ManifestError, match=r"network\.listen\[0\].*name the address of this machine"):
        parse_manifest(f'{MANIFEST}network: {{listen: ["example.org:80"]}}\n'.encode())


def test_a_manifest_keeps_its_entries() -> None:
    network = '{allow: ["*.example.org:443", "[::1]:*"], listen: ["127.0.0.1:0"]}'
    manifest = parse_manifest(f"{MANIFEST}network: {network}\n".encode())
    assert list(map(str, manifest.network.allow)) == ["*.example.org:443", "[::1]:*"]
    assert list(map(str, manifest.network.listen)) == ["127.0.0.1:0"]


@pytest.mark.parametrize("wrong", ["{reach: []}", "[]", '{allow: "*:1"}', "{allow: [1]}", '{allow: ["*:1", "*:1"]}'])
def test_another_form_is_refused(wrong: str) -> None:
    with pytest.raises(ManifestError, match="network"):
        parse_manifest(f"{MANIFEST}network: {wrong}\n".encode())


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"allow": ["example.org"]}, r"network\.allow\[0\]"),
        ({"sockets": 0}, "sockets is 0"),
        ({"rate": 1_000_000}, "rate is 1000000"),
    ],
)
def test_a_wrong_policy_is_named(policy: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        NetworkPolicy(**policy)  # type: ignore[arg-type]


class TestStrict:
    manifest = Manifest(
        id="org.example.p",
        name="p",
        version="1.0.0",
        chain="dev",
        capabilities=frozenset(),
        binary="p.so",
        security=Security(sandbox=True),
        network=Network(allow=(parse_allowed("*.example.org:443"),), listen=(parse_listened("127.0.0.1:1"),)),
    )

    @pytest.mark.parametrize("network", [None, NetworkPolicy(), NetworkPolicy(allow=["*:*"]), NetworkPolicy(listen=[])])
    def test_it_needs_the_operators_word_for_each_list(self, network: NetworkPolicy | None) -> None:
        decision = Policy(PolicyLevel.STRICT).decide(self.manifest, b"\0" * 32, network=network)
        assert not decision.allowed
        assert "the operator's own list" in decision.reason
        assert not decision.network
        assert "network:" in decision.remedy

    def test_an_empty_list_is_a_word(self) -> None:
        decision = Policy(PolicyLevel.STRICT).decide(self.manifest, b"\0" * 32, network=NetworkPolicy(allow=[], listen=[]))
        assert "the operator's own list" not in decision.reason

    def test_what_asks_for_nothing_needs_no_word(self) -> None:
        decision = Policy(PolicyLevel.STRICT).decide(replace(self.manifest, network=Network()), b"\0" * 32)
        assert "the operator's own list" not in decision.reason

    def test_dev_takes_the_manifests_word(self) -> None:
        decision = Policy(PolicyLevel.DEV).decide(self.manifest, b"\0" * 32)
        assert decision.network.as_data() == {
            "allow": ["*.example.org:443"],
            "listen": ["127.0.0.1:1"],
            "operator_allow": None,
            "operator_listen": None,
        }
