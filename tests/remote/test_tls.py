"""Over TCP nobody gets in without a certificate of the authority, and the node says why (clauses T3, G4)."""

from __future__ import annotations

import contextlib
import socket
import ssl
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives import serialization

from supervm_rt import EventKind
from supervm_rt.errors import ConfigurationError
from tests.remote.certificates import Authority
from tests.remote.messages import fields, register, registered
from tests.remote.support import RawPeer, Served, serving


@asynccontextmanager
async def connect(node: Served, context: ssl.SSLContext | None, name: str = "localhost") -> AsyncGenerator[RawPeer, None]:
    port = int(node.runtime.listening[0].rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        if context is None:
            yield RawPeer(stream)
            return
        secure = trio.SSLStream(stream, context, server_hostname=name)
        await secure.do_handshake()
        yield RawPeer(secure)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_plugin_registers_over_mutual_tls(tmp_path: Path, version: str) -> None:
    authority = Authority.make(tmp_path / "tls")

    async def main() -> None:
        address = authority.address(minimum_version=version, names=frozenset({"plugin.example", "other.example"}))
        async with serving(tmp_path, listen=(address,)) as node:
            context = authority.client()
            context.maximum_version = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
            async with connect(node, context) as raw:
                assert registered((await raw.call("Register", register("org.example.tls"))).messages[0])

    trio.run(main)


def test_what_is_written_is_sent_at_once(tmp_path: Path) -> None:
    """The kernel would wait for what was sent before to be acknowledged, 40 ms for each window that the peer grants."""
    authority = Authority.make(tmp_path / "tls")

    async def main() -> None:
        async with serving(tmp_path, listen=(authority.address(),)) as node, connect(node, authority.client()) as raw:
            assert (await raw.call("Health", b"")).status == 0
            remote: Any = node.runtime._remote
            (protocol,) = remote._gate._server.protocols
            accepted = protocol.connection._transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    trio.run(main)


REFUSED = [
    ("wrong authority", "its certificate was refused: "),
    ("expired", "its certificate was refused: certificate has expired"),
    ("wrong name", "its certificate is for stranger.example, and none of names"),
    ("none", "it showed no certificate"),
    ("TLS 1.1", "versions of TLS that are too old"),
    ("TLS 1.2", "versions of TLS that are too old"),
    ("no TLS", "it speaks without TLS"),
    ("HTTP", "it speaks without TLS"),
]


@pytest.mark.parametrize(("how", "said"), REFUSED, ids=[how for how, _ in REFUSED])
def test_who_is_refused_and_why(tmp_path: Path, how: str, said: str) -> None:
    authority, other = Authority.make(tmp_path / "tls"), Authority.make(tmp_path / "other")

    async def main() -> None:
        address = authority.address(names=frozenset({"plugin.example"}))
        async with serving(tmp_path, listen=(address,)) as node:
            match how:
                case "wrong authority":
                    context = other.client(trusts=authority)
                case "expired":
                    context = authority.client(expired=True)
                case "wrong name":
                    context = authority.client("stranger.example")
                case "none":
                    context = authority.client(None)
                case _:
                    context = authority.client()
            if how.startswith("TLS"):
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    context.maximum_version = ssl.TLSVersion.TLSv1_1 if how == "TLS 1.1" else ssl.TLSVersion.TLSv1_2
                context.set_ciphers("ALL:@SECLEVEL=0")
            if how in {"no TLS", "HTTP"}:
                async with connect(node, None) as raw:
                    await raw.stream.send_all(b"GET / HTTP/1.1\r\n\r\n" if how == "HTTP" else raw.http.data_to_send())
                    with trio.fail_after(10):
                        while await raw.stream.receive_some(1_000):
                            pass
            else:
                with contextlib.suppress(trio.BrokenResourceError):
                    async with connect(node, context) as raw:
                        answer = await raw.call("Register", register("org.example.tls"))
                        assert not answer.messages
            event = await node.seen.until(EventKind.REMOTE_REFUSED, said)
            assert event.message.startswith("127.0.0.1:")
            assert not node.runtime.plugins

    trio.run(main)


def test_a_peer_sees_a_node_of_another_name(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "tls")

    async def main() -> None:
        async with serving(tmp_path, listen=(authority.address(),)) as node:
            with pytest.raises(trio.BrokenResourceError) as caught:
                async with connect(node, authority.client(), name="elsewhere.example"):
                    pass
            assert "not valid for" in str(caught.value.__cause__)
            await node.seen.until(EventKind.REMOTE_REFUSED)

    trio.run(main)


@pytest.mark.parametrize("missing", ["node.pem", "key.pem", "authority.pem"])
def test_certificates_that_cannot_be_used(tmp_path: Path, missing: str) -> None:
    authority = Authority.make(tmp_path / "tls")
    address = authority.address()
    (tmp_path / "tls" / missing).write_text("nonsense")

    async def main() -> None:
        async with serving(tmp_path, listen=(address,)):
            pass

    with pytest.raises(ConfigurationError, match="no usable certificates"):
        trio.run(main)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    """OpenSSL would ask at the terminal, and the node would wait."""
    address = Authority.make(tmp_path / "tls").address()
    key = serialization.load_pem_private_key(address.key.read_bytes(), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    address.key.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigurationError, match="its key has a password"):
        address.context()


def test_the_token_of_another_is_worth_nothing(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "tls")

    async def main() -> None:
        async with serving(tmp_path, listen=(authority.address(),)) as node:
            mine, others = authority.client("one.example"), authority.client("two.example")
            async with connect(node, mine) as one, connect(node, others) as two:
                response = fields((await one.call("Register", register("org.example.one"))).messages[0])
                (token,) = response[4]
                assert isinstance(token, bytes)
                stolen = (("supervm-session", token.decode()),)
                answer = await two.call("BlockExchange", b"", stolen)
                assert (answer.status, "belongs to another peer" in answer.message) == (7, True)
                # Nor can it take its place.
                refused = await two.call("Register", register("org.example.one"))
                assert not registered(refused.messages[0])
                assert node.runtime.plugins["org.example.one"].failure is None

    trio.run(main)
