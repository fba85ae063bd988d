"""A real bitcoind as an owned child process: started on an empty or prepared data folder, asked over JSON-RPC, and always ended.

It never talks to anybody: no listening peer port, no outgoing connection, RPC on loopback with the cookie of its own data folder.
Standard library only; ``tools/make-sample-chain`` uses it too.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

START_DEADLINE = 60.0
STOP_DEADLINE = 30.0
CALL_DEADLINE = 60.0
_START_ATTEMPTS = 3
_WARMING_UP = -28

_NETWORK_NAMES = {"testnet3": "test"}
_NETWORK_FOLDERS = {"main": ".", "testnet3": "testnet3", "testnet4": "testnet4", "signet": "signet", "regtest": "regtest"}

_ALONE = (
    "-server=1",
    "-listen=0",
    "-connect=0",
    "-dnsseed=0",
    "-fixedseeds=0",
    "-discover=0",
    "-listenonion=0",
    "-natpmp=0",
    "-networkactive=0",
)
_SMALL = ("-disablewallet=1", "-printtoconsole=0", "-par=1", "-dbcache=16", "-persistmempool=0")


class Tip(NamedTuple):
    """The last block of the node's best chain."""

    hash: str
    height: int


class RpcError(Exception):
    """The node answered a call with an error."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.method = method
        self.code = code
        self.message = message


class NodeError(Exception):
    """The node did not start, or went away; the message ends with the tail of its log."""


class Bitcoind:
    """``with Bitcoind(folder) as node:`` runs ``folder/bitcoind`` for as long as the block lasts.

    ``network`` is one of main, testnet3, testnet4, signet and regtest. ``data_folder`` is used and kept where given (so that a
    node can be started again on what it left); otherwise a temporary one is made and removed.
    """

    def __init__(
        self, folder: Path, *, network: str = "regtest", arguments: Sequence[str] = (), data_folder: Path | None = None
    ) -> None:
        self._binary = folder / "bitcoind"
        self._network = network
        self._arguments = tuple(arguments)
        self._given_data_folder = data_folder
        self._data_folder = data_folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._mined = 0
        self._token = secrets.token_bytes(16)

    @property
    def data_folder(self) -> Path:
        """Where the node keeps all its files."""
        if self._data_folder is None:
            raise NodeError("the node has no data folder: it is not started")
        return self._data_folder

    @property
    def blocks_folder(self) -> Path:
        """Where its ``blk*.dat`` and ``xor.dat`` are."""
        return self._network_folder / "blocks"

    @property
    def _network_folder(self) -> Path:
        return self.data_folder / _NETWORK_FOLDERS[self._network]

    def __enter__(self) -> Self:
        if self._given_data_folder is None:
            self._data_folder = Path(tempfile.mkdtemp(prefix="bitcoind-"))
        else:
            self._given_data_folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _start(self) -> None:
        # Another process can take the free port between the look and the start: the node ends at once, and another port is tried.
        for attempt in range(1, _START_ATTEMPTS + 1):
            self._port = _free_port()
            command = [
                *_dies_with_us(),
                str(self._binary),
                f"-datadir={self.data_folder}",
                f"-chain={_NETWORK_NAMES.get(self._network, self._network)}",
                *_ALONE,
                *_SMALL,
                "-rpcbind=127.0.0.1",
                "-rpcallowip=127.0.0.1",
                f"-rpcport={self._port}",
                *self._arguments,
            ]
            with (self.data_folder / "stderr.log").open("wb") as log:
                # A session of its own: an interrupt typed at the terminal is for the tests, which stop the node in order.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
                )
            try:
                self._wait_until_ready()
                return
            except NodeError:
                self._end_process()
                if attempt == _START_ATTEMPTS or "Unable to bind" not in self._log_tail():
                    raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise NodeError(f"bitcoind ended while starting:\n{self._log_tail()}")
            try:
                self.rpc("getblockchaininfo")
                return
            except RpcError as error:
                if error.code != _WARMING_UP:
                    raise
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        raise NodeError(f"bitcoind did not answer within {START_DEADLINE:.0f} s:\n{self._log_tail()}")

    def _log_tail(self, lines: int = 20) -> str:
        text = ""
        for path in (self._network_folder / "debug.log", self.data_folder / "stderr.log"):
            if path.exists():
                text += f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) + "\n"
        return text

    def stop(self) -> None:
        """Stops the node in order and keeps its data folder until the end of the ``with`` block."""
        if self._process is None:
            return
        if self._process.poll() is None:
            try:
                self.rpc("stop")
                self._process.wait(STOP_DEADLINE)
            except (RpcError, NodeError, OSError, http.client.HTTPException, subprocess.TimeoutExpired):
                pass
        self._end_process()

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        process.wait()

    def _end(self) -> None:
        try:
            self.stop()
        finally:
            if self._given_data_folder is None and self._data_folder is not None:
                shutil.rmtree(self._data_folder, ignore_errors=True)
                self._data_folder = None

    def rpc(self, method: str, *parameters: object) -> Any:
        """One call; amounts come as Decimal. Raises RpcError where the node refuses, NodeError where it has ended."""
        if self._process is None:
            raise NodeError(f"{method}: the node is not running")
        try:
            cookie = (self._network_folder / ".cookie").read_bytes()
            status, body = self._post(json.dumps({"method": method, "params": parameters, "id": 1}), cookie)
        except (OSError, http.client.HTTPException):
            if self._process.poll() is not None:
                raise NodeError(f"{method}: bitcoind has ended:\n{self._log_tail()}") from None
            raise
        try:
            answer = json.loads(body, parse_float=Decimal)
        except ValueError:
            raise NodeError(f"{method}: status {status}, {body[:200]!r}") from None
        if answer["error"] is not None:
            raise RpcError(method, answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def _post(self, body: str, cookie: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=CALL_DEADLINE)
        try:
            token = base64.b64encode(cookie).decode()
            connection.request("POST", "/", body, {"Authorization": f"Basic {token}", "Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def tip(self) -> Tip:
        """The tip of the best chain."""
        information = self.rpc("getblockchaininfo")
        return Tip(information["bestblockhash"], information["blocks"])

    def hash_at(self, height: int) -> str:
        """The hash of a block of the best chain."""
        return str(self.rpc("getblockhash", height))

    def mine(self, count: int = 1, transactions: Sequence[str] = ()) -> list[str]:
        """Mines on the tip, each block to an output script never used before (so that no two of the blocks are ever equal).

        ``transactions`` (raw, hex) go into the first block. Returns the hashes in order.
        """
        hashes: list[str] = []
        for _ in range(count):
            self._mined += 1
            script = b"\x00\x14" + self._token + self._mined.to_bytes(4, "big")
            descriptor = self.rpc("getdescriptorinfo", f"raw({script.hex()})")["descriptor"]
            hashes.append(self.rpc("generateblock", descriptor, [] if hashes else list(transactions))["hash"])
        return hashes

    def reorg(self, depth: int, extra: int = 1) -> list[str]:
        """Replaces the last ``depth`` blocks by ``depth + extra`` new ones, whose hashes it returns. The old ones stay known."""
        first = self.hash_at(self.tip().height - depth + 1)
        self.rpc("invalidateblock", first)
        hashes = self.mine(depth + extra)
        self.rpc("reconsiderblock", first)
        return hashes


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _dies_with_us() -> tuple[str, ...]:
    """A prefix that has the kernel end the node, in order, should this process be killed before it can.

    The kernel watches the thread that started the node: that must be one that lives as long as the node, such as the main thread.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", signal.SIGTERM.name.removeprefix("SIG"), "--") if setpriv else ()
