"""What tests of the network share: the plugin that follows a script, a node, servers, a resolver that is counted."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

import supervm_rt
from supervm_rt import Deadlines, EventKind, HostEvent, NetworkPolicy, PluginConfig, PolicyLevel, Runtime, RuntimeConfig
from supervm_rt.trust.policy import Placement

SOURCES = Path(__file__).parent / "plugins"
PLUGIN = "org.example.client"
OK, INVALID, NOT_GRANTED, QUEUE_FULL, STOPPING = 0, -1, -2, -4, -6
WOULD_BLOCK, NOT_FOUND, TIMED_OUT, UNREACHABLE = -7, -9, -12, -13
IN_CHILD = pytest.param(Placement.CHILD, marks=pytest.mark.unsanitized)  # a sanitizer cannot run confined
BOTH = pytest.mark.parametrize("placement", [Placement.IN_PROCESS, IN_CHILD], indirect=True, ids=str)
SECONDS = 60


def compile_client(folder: Path) -> Path:
    target = folder / "client.so"
    command = [
        "cc",
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-O1",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    command += [f"-I{supervm_rt.get_include()}", "-pthread", "-o", str(target), str(SOURCES / "client.c")]
    subprocess.run(command, check=True)
    return target


class Names:
    """A resolver: ``found`` gives the addresses of a name, or what to do instead. Every question is kept."""

    def __init__(self, **found: Sequence[str] | Callable[[int], Sequence[str]]) -> None:
        self.found = found
        self.asked: list[str] = []

    def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        answer = self.found.get(name.partition(".")[0])
        if answer is None:
            raise OSError("no such name")
        return answer(self.asked.count(name)) if callable(answer) else answer


@dataclass
class Scene:
    """One node with one plugin."""

    folder: Path
    library: Path
    placement: Placement
    events: list[HostEvent] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def open(
        self,
        script: str,
        *,
        allow: Sequence[str] = (),
        listen: Sequence[str] = (),
        names: Callable[[str], Sequence[str]] | None = None,
        network: NetworkPolicy | None = None,
        profile: str = "baseline",
        policy: PolicyLevel = PolicyLevel.DEV,
        deadlines: Deadlines | None = None,
        heartbeat: str = "30s",
        restart: str = "never",
    ) -> AsyncGenerator[Runtime, None]:
        plugin = self.folder / "plugin"
        plugin.mkdir(exist_ok=True)
        (plugin / "plugin.so").write_bytes(self.library.read_bytes())
        (plugin / "plugin.yaml").write_text(
            f'id: {PLUGIN}\nname: client\nversion: "1.0.0"\nchain: dev\ncapabilities: []\nbinary: ./plugin.so\n'
            f"restart: {restart}\nheartbeat: {heartbeat}\nsecurity: {{sandbox: false, seccomp_profile: {profile}}}\n"
            f"network: {{allow: {quoted(allow)}, listen: {quoted(listen)}}}\n"
        )
        config = RuntimeConfig(
            store=self.folder / "store.db",
            plugins=(PluginConfig(plugin, placement=self.placement, network=network, settings={"script": script}),),
            policy=policy,
            ring_bytes=1 << 16,
            deadlines=deadlines or Deadlines(),
            resolver=names or Names(),
        )
        async with supervm_rt.open_runtime(config, receivers=(self.events.append,)) as runtime:
            yield runtime

    async def run(self, script: str, **options: object) -> list[str]:
        """Runs the script to its end. Returns what the plugin said."""
        async with self.open(script, **options) as runtime:  # type: ignore[arg-type]
            await self.said(runtime, "done")
        return self.lines()[:-1]

    async def said(self, runtime: Runtime, line: str) -> None:
        """Waits until the plugin said this, or is over."""
        with trio.fail_after(SECONDS):
            while line not in self.lines():
                assert not runtime.plugins[PLUGIN].finished, runtime.plugins[PLUGIN].failure
                await trio.sleep(0.002)

    async def reported(self, action: str) -> HostEvent:
        with trio.fail_after(SECONDS):
            while not (found := self.network(action)):
                await trio.sleep(0.002)
        return found[0]

    def lines(self) -> list[str]:
        return [event.message for event in self.events if event.kind is EventKind.PLUGIN_LOG]

    def network(self, action: str) -> list[HostEvent]:
        events = [event for event in self.events if event.kind is EventKind.PLUGIN_NETWORK]
        return [event for event in events if event.data["action"] == action]

    def failures(self) -> list[HostEvent]:
        return [event for event in self.events if event.kind is EventKind.PLUGIN_FAILED]


def quoted(entries: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{entry}"' for entry in entries) + "]"


@dataclass
class Server:
    """Accepts connections and answers what it is told with ``name``; every visit is counted."""

    address: str
    port: int
    visits: list[tuple[str, int]] = field(default_factory=list)


@contextlib.contextmanager
def server(address: str = "127.0.0.1", port: int = 0, name: str = "server") -> Iterator[Server]:
    with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as listening:
        state = Server(address, listening.getsockname()[1])
        kept: list[socket.socket] = []

        def answer(connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while connection.recv(64):
                    connection.sendall(name.encode())

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, peer = listening.accept()
                    state.visits.append(peer[:2])
                    kept.append(connection)
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """A port whose queue is full: whoever connects gets no answer at all."""
    with socket.socket() as listening, contextlib.ExitStack() as fillers:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        while True:
            filler = fillers.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(("127.0.0.1", port))
            except TimeoutError:
                filler.close()
                break
        yield port


async def dialling(port: int) -> None:
    """Waits until somebody on this machine waits for an answer from 127.0.0.1 and this port."""
    wanted = f"0100007F:{port:04X} 02"
    with trio.fail_after(SECONDS):
        while wanted not in await trio.Path("/proc/net/tcp").read_text():
            await trio.sleep(0.002)
