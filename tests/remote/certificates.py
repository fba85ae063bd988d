"""Authorities and certificates for tests."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

from supervm_rt.transports.remote.addresses import TcpAddress


@dataclass
class Authority:
    """One that signs for the node and for peers."""

    folder: Path
    ca: trustme.CA

    @classmethod
    def make(cls, folder: Path) -> Authority:
        folder.mkdir(exist_ok=True)
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(folder / "authority.pem"))
        return cls(folder, ca)

    def address(self, **more: object) -> TcpAddress:
        """Where a node listens with a certificate for localhost."""
        issued = self.ca.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(str(self.folder / "key.pem"))
        with (self.folder / "node.pem").open("wb") as file:
            for blob in issued.cert_chain_pems:
                file.write(blob.bytes())
        return TcpAddress(
            "127.0.0.1",
            0,
            certificate=self.folder / "node.pem",
            key=self.folder / "key.pem",
            authority=self.folder / "authority.pem",
            **more,  # type: ignore[arg-type]
        )

    def client(
        self, name: str | None = "plugin.example", *, trusts: Authority | None = None, expired: bool = False
    ) -> ssl.SSLContext:
        """What a peer connects with. ``name``: of its certificate; None: it shows none."""
        context = ssl.create_default_context()
        (trusts or self).ca.configure_trust(context)
        context.set_alpn_protocols(["h2"])
        if name is not None:
            past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
            until = past + datetime.timedelta(days=1)
            issued = self.ca.issue_cert(name, not_before=past, not_after=until) if expired else self.ca.issue_cert(name)
            issued.configure_cert(context)
        return context
