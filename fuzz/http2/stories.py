"""What one peer, or several alike, writes to the server: a story is made of a seed alone.

A *sound* story is HTTP/2 and gRPC as they should be, cut, padded and mixed in any way that they allow: each of its calls has to
get its status. The others break rules, one or many, or keep to them and flood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from grpclib.health.v1.health_pb2 import HealthCheckRequest
from hpack import Encoder

from fuzz.http2 import frames as http
from fuzz.http2.frames import call_headers, frame, header_block, message
from fuzz.remote_differential.seeds import seeds
from tests.remote.messages import block, register
from tests.remote.messages import field as proto_field

PLUGINS = 6
"""Names that peers register under."""
LARGEST = 600_000
"""About so many bytes of a flood."""
EXCHANGE = tuple(seeds().values())
METHODS = ("Register", "Heartbeat", "StreamBlocks", "BlockExchange", "SubmitTx", "Health")
CHECK = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
OK, NOT_FOUND, UNIMPLEMENTED, UNAUTHENTICATED = 0, 5, 12, 16
ONCE = proto_field(10, 1)
SOUND_CALLS: tuple[tuple[str, bytes, int], ...] = (
    ("Health", b"", OK),
    ("SubmitTx", proto_field(1, "dev") + proto_field(2, b"tx"), OK),
    ("StreamBlocks", ONCE, OK),
    ("StreamBlocks", ONCE + proto_field(3, "nowhere"), NOT_FOUND),
    ("Heartbeat", b"", UNAUTHENTICATED),
    ("BlockExchange", b"", UNAUTHENTICATED),
    ("Nothing", b"", UNIMPLEMENTED),
    (CHECK, HealthCheckRequest().SerializeToString(), OK),
    (CHECK, HealthCheckRequest(service="x").SerializeToString(), NOT_FOUND),
)


@dataclass
class Story:
    """What is written, in order."""

    kind: str
    steps: list[bytes]
    """Each is handed to the socket by itself."""
    peers: int = 1
    """So many connections do this at once."""
    reads: bool = True
    """Whether it takes what the server sends, while it writes."""
    leaves: str = "end"
    """How it goes: ``end`` of its side, or ``abort``."""
    expected: dict[int, int] = field(default_factory=dict)
    """gRPC status by stream, of a sound story."""


def story(seed: int) -> Story:
    """The story of a seed."""
    random = Random(seed)
    make = random.choices(list(_KINDS), list(_KINDS.values()))[0]
    told = make(random)
    if not told.expected:
        told.reads = random.random() < 0.8
        told.leaves = random.choice(("end", "end", "abort"))
        if told.peers == 1 and random.random() < 0.1:
            told.peers = random.randint(2, 5)
    told.steps = _cut(random, told.steps)
    return told


def _cut(random: Random, steps: list[bytes]) -> list[bytes]:
    """Frames as they are, all at once, or cut anywhere."""
    way = random.random()
    if way < 0.4:
        return steps
    whole = b"".join(steps)
    if way < 0.7 or len(whole) > LARGEST // 10:
        return [whole]
    cuts = sorted(random.randrange(len(whole) + 1) for _ in range(random.randint(1, 20)))
    return [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True) if begin < end]


class Talk:
    """A connection as the peer sees it: its header table, its next stream."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.encoder = Encoder()
        self.stream = 1
        self.steps = [http.PREFACE + http.settings()]

    def next_stream(self) -> int:
        """The number of one that is new."""
        self.stream += 2
        return self.stream - 2

    def begin(self, method: str, *more: tuple[str, str], end: bool = False) -> int:
        """Begins a call."""
        stream = self.next_stream()
        encoded = header_block(self.encoder, call_headers(method, *more))
        self.steps += http.begun(self.random, stream, encoded, end=end)
        return stream

    def send(self, stream: int, content: bytes, *, end: bool = False) -> None:
        """Sends bytes of a call."""
        self.steps += http.data_frames(self.random, stream, content, end=end)

    def some_stream(self) -> int:
        """One that was begun, mostly."""
        chance = self.random.random()
        if chance < 0.7 and self.stream > 1:
            return self.random.randrange(1, self.stream, 2)
        return self.random.choice((0, 2, self.stream, self.stream + 8, (1 << 31) - 1, 1 << 31, self.random.getrandbits(31)))


# ---- sound -----------------------------------------------------------------------------------------------------------------


def sound(random: Random) -> Story:
    """Calls that each have to be answered, mixed, and with what has to be ignored or acknowledged between their frames."""
    talk = Talk(random)
    talk.steps.append(http.window_update(0, 1 << 24))
    talk.steps.append(http.settings((http.INITIAL_WINDOW_SIZE, 1 << 20), (0x4242, 7)))
    expected: dict[int, int] = {}
    open_: list[list[bytes]] = []
    left = random.randint(1, 10)
    while left or open_:
        if left and (not open_ or random.random() < 0.4):
            method, content, status = random.choice(SOUND_CALLS)
            stream = talk.begin(method, *random.choice(_HARMLESS))
            expected[stream] = status
            open_.append(http.data_frames(random, stream, message(content), end=True))
            left -= 1
        elif random.random() < 0.25:
            talk.steps.append(_ignored(random))
        else:
            queue = random.choice(open_)
            talk.steps.append(queue.pop(0))
            open_ = [each for each in open_ if each]
    return Story("sound", talk.steps, expected=expected)


_HARMLESS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (),
    (("user-agent", "x" * 300),),
    (("grpc-timeout", "30S"), ("x-some", "value")),
    (("x-some-bin", "AAEC"), ("accept-encoding", "identity")),
    (("grpc-accept-encoding", "gzip,identity"),),
)


def _ignored(random: Random) -> bytes:
    return random.choice(
        (
            frame(http.PING, 0, 0, random.randbytes(8)),
            frame(http.PING, http.ACK, 0, random.randbytes(8)),
            frame(random.randrange(0x20, 0x100), random.randrange(256), random.getrandbits(31), random.randbytes(20)),
            frame(http.PRIORITY, 0, 1 + 2 * random.randrange(50), bytes(4) + b"\x10"),
            http.window_update(0, random.randint(1, 1000)),
            http.settings((http.MAX_CONCURRENT_STREAMS, 5)),
        )
    )


# ---- not sound -------------------------------------------------------------------------------------------------------------


def wild(random: Random) -> Story:
    """Frames of every kind, most with something wrong."""
    talk = Talk(random)
    if random.random() < 0.05:
        talk.steps = [random.choice((b"", http.PREFACE, http.PREFACE[:7], b"GET / HTTP/1.1\r\n\r\n", random.randbytes(24)))]
    for _ in range(random.randint(1, 25)):
        random.choice(_ACTS)(talk)
    return Story("wild", talk.steps)


def mutated(random: Random) -> Story:
    """The bytes of another story, changed."""
    basis = random.choice((sound, sound, wild, plugin))(random)
    data = bytearray(b"".join(basis.steps))
    keep = 0 if random.random() < 0.1 else len(http.PREFACE)  # most changes of the preface are the end of it
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        if len(data) <= keep:
            break
        place = random.randrange(keep, len(data))
        size = random.choice((1, 1, 2, 4, 9, 30))
        match random.randrange(6):
            case 0:
                data[place] ^= 1 << random.randrange(8)
            case 1:
                data[place] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del data[place : place + size]
            case 3:
                data[place:place] = data[place : place + size]
            case 4:
                data[place:place] = random.randbytes(size)
            case _:
                del data[place:]
    return Story("mutated", [bytes(data)])


def plugin(random: Random) -> Story:
    """A plugin that registers, and then says anything."""
    talk = Talk(random)
    name = f"org.example.fuzz-{random.randrange(PLUGINS)}"
    more = proto_field(6, 1) if random.random() < 0.7 else b""
    talk.send(talk.begin("Register"), message(register(name, capabilities=("block_stream", "submit_tx")) + more), end=True)
    token = (("supervm-session", random.choice(("x", "", "é"))),) if random.random() < 0.1 else ()
    exchange = talk.begin("BlockExchange", *token)
    for _ in range(random.randint(0, 12)):
        if random.random() < 0.2:
            random.choice(_ACTS)(talk)
        talk.send(exchange, b"".join(_said(random) for _ in range(random.choice((1, 1, 5, 300)))))
    if random.random() < 0.5:
        talk.send(exchange, b"", end=True)
    return Story("plugin", talk.steps)


def _said(random: Random) -> bytes:
    content = random.choice((block(random.randrange(1, 20)), *EXCHANGE))
    chance = random.random()
    if chance < 0.05:
        return message(content, length=random.choice((0, 1, len(content) + 1, 0xFFFFFFFF)))
    if chance < 0.1:
        content = random.randbytes(random.randrange(40))
    elif chance < 0.2 and content:
        place = random.randrange(len(content))
        content = content[:place] + random.randbytes(1) + content[place + 1 :]
    return message(content)


def _a_call(talk: Talk) -> None:
    random = talk.random
    method = random.choice((*METHODS, CHECK, REFLECTION, "Nothing", "/", "", "/x/y"))
    stream = talk.begin(method, *random.choice(_HARMLESS), end=random.random() < 0.1)
    content = b"".join(_said(random) for _ in range(random.choice((0, 1, 1, 1, 3))))
    talk.send(stream, content, end=random.random() < 0.7)


def _strange_headers(talk: Talk) -> None:
    random = talk.random
    headers = call_headers(random.choice(METHODS))
    for _ in range(random.choice((1, 1, 2))):
        match random.randrange(4):
            case 0:
                del headers[random.randrange(len(headers))]
            case 1:
                headers.insert(random.randrange(len(headers) + 1), random.choice(_STRANGE))
            case 2:
                headers.append(random.choice(headers))
            case _:
                place = random.randrange(len(headers))
                headers[place] = (
                    headers[place][0],
                    random.choice(("", "x", "POST", "trailers", "application/grpc+json", "\xff")),
                )
    stream = talk.next_stream()
    talk.steps += http.begun(random, stream, header_block(talk.encoder, headers), end=random.random() < 0.5)


_STRANGE = (
    *(("grpc-timeout", text) for text in ("0n", "1n", "99999999H", "999999999S", "-1S", "1", "S", "1.5S", "\xb2S", "")),
    *(("x-some-bin", text) for text in ("!", "AAE", "\xe9", "A" * 1000)),
    *((":path", text) for text in ("", "*", "/" * 4000)),
    *(("content-length", text) for text in ("0", "5", "-1", "x", "18446744073709551616", "\xb2")),
    *((name, "x") for name in ("", "X-Upper", "connection", "transfer-encoding", ":status", ":unknown", "\xff\xfe", "a b")),
    ("cookie", "a=b; " * 100),
    ("x-long", "y" * 9000),
    ("x-longer", "y" * 20_000),
    ("grpc-encoding", "gzip"),
    ("supervm-session", "x" * 5000),
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    ("expect", "100-continue"),
)


def _broken_block(talk: Talk) -> None:
    """A header block that hpack cannot, or should not, read."""
    random = talk.random
    block_ = random.choice(
        (
            random.randbytes(random.randrange(60)),
            b"\x80",  # index 0
            b"\xff" * 12,  # an index without an end
            b"\x3f" + b"\xff" * 8 + b"\x01",  # a table of any size
            b"\x3f\xe1\xff\xff\xff\x07",
            b"\x20" * 300,  # sizes of the table again and again
            b"\xbe" * 50,  # entries that are not there
            b"\x00\x01a\x7f\xff\xff\xff\xff\x07",  # a length beyond the end
            b"\x00\x81\xff\x81\xff",  # Huffman code that is none
            b"\x40\x01a\x7f\x81\x1f" + b"x" * 4096 + b"\xbe" * 5000,
        )
    )
    talk.steps += http.begun(random, talk.next_stream(), block_, end=random.random() < 0.5)


def _settings(talk: Talk) -> None:
    random = talk.random
    values = (0, 1, 2, 16_383, 16_384, 65_535, (1 << 24) - 1, 1 << 24, http.LARGEST_WINDOW, 1 << 31, (1 << 32) - 1)
    chosen = [(random.choice((*range(1, 10), 0xFFFF)), random.choice(values)) for _ in range(random.choice((0, 1, 1, 3, 40)))]
    told = http.settings(*chosen)
    chance = random.random()
    if chance < 0.1:
        told = frame(http.SETTINGS, http.ACK, 0)
    elif chance < 0.2:
        told = frame(
            http.SETTINGS, random.randrange(256), random.choice((0, 0, 1)), told[9:] + random.randbytes(random.randrange(3))
        )
    talk.steps.append(told)


def _windows(talk: Talk) -> None:
    random = talk.random
    for _ in range(random.choice((1, 1, 3, 40))):
        increment = random.choice((0, 1, 65_535, http.LARGEST_WINDOW, 1 << 31))
        talk.steps.append(http.window_update(talk.some_stream(), increment))


def _resets(talk: Talk) -> None:
    talk.steps.append(http.reset(talk.some_stream(), talk.random.choice((0, 1, 8, 0xFFFFFFFF))))


def _stray_data(talk: Talk) -> None:
    talk.steps += http.data_frames(talk.random, talk.some_stream(), _said(talk.random), end=talk.random.random() < 0.5)


def _second_headers(talk: Talk) -> None:
    """Of a stream that was begun: trailers, or an error."""
    headers = talk.random.choice(([("x-end", "1")], call_headers("Health"), [(":path", "/")], []))
    encoded = header_block(talk.encoder, headers)
    talk.steps += http.begun(talk.random, talk.some_stream(), encoded, end=talk.random.random() < 0.7)


def _odd_frame(talk: Talk) -> None:
    """Any type, any flags, any length, truthful or not."""
    random = talk.random
    payload = random.randbytes(random.choice((0, 1, 3, 4, 5, 6, 8, 9, 100)))
    length = random.choice((None, None, None, 0, len(payload) + 1, 16_385, 262_145, 0xFFFFFF))
    kind = random.choice((*range(10), 0xA, 0xC, random.randrange(256)))
    talk.steps.append(frame(kind, random.choice((0, 1, 4, 5, 8, 0x2D, 0xFF)), talk.some_stream(), payload, length=length))


def _bad_padding(talk: Talk) -> None:
    kind = talk.random.choice((http.DATA, http.HEADERS, http.PUSH_PROMISE))
    payload = bytes((talk.random.choice((1, 5, 255)),)) + talk.random.randbytes(talk.random.randrange(5))
    flags = http.PADDED | http.END_HEADERS if kind != http.DATA else http.PADDED
    talk.steps.append(frame(kind, flags, talk.some_stream(), talk.random.choice((b"", payload))))


def _open_block(talk: Talk) -> None:
    """A header block that something else comes into."""
    encoded = header_block(talk.encoder, call_headers("Health"))
    stream = talk.next_stream()
    talk.steps.append(frame(http.HEADERS, 0, stream, encoded[:5]))
    talk.steps.append(frame(http.CONTINUATION, 0, talk.random.choice((stream, stream, 0, stream + 2)), encoded[5:9]))
    if talk.random.random() < 0.5:
        talk.random.choice((_windows, _settings, _stray_data))(talk)


def _goaway(talk: Talk) -> None:
    code = talk.random.getrandbits(4)
    talk.steps.append(frame(http.GOAWAY, 0, talk.random.choice((0, 0, 1)), bytes(7) + bytes((code,)) + talk.random.randbytes(30)))


def _table_growth(talk: Talk) -> None:
    """A table for the server's headers that is as large as can be, and answers that would fill it."""
    talk.steps.append(http.settings((http.HEADER_TABLE_SIZE, (1 << 32) - 1)))
    for _ in range(30):
        stream = talk.begin("Health")
        talk.send(stream, message(b"", length=(1 << 24) + talk.random.getrandbits(20)))


_ACTS: tuple[Callable[[Talk], None], ...] = (
    *((_a_call,) * 6),
    *((_strange_headers,) * 3),
    *((_odd_frame,) * 2),
    _broken_block,
    _settings,
    _windows,
    _resets,
    _stray_data,
    _second_headers,
    _bad_padding,
    _open_block,
    _goaway,
    _table_growth,
)


# ---- floods ----------------------------------------------------------------------------------------------------------------


def flood(random: Random) -> Story:
    """More of one thing than anybody needs."""
    talk = Talk(random)
    make = random.choice(_FLOODS)
    if random.random() < 0.5:
        talk.send(talk.begin("Health"), message(b""), end=True)
    pieces: list[bytes] = []
    most, size = random.choice((100, 3_000, 40_000)), 0
    for number, piece in enumerate(make(talk)):
        pieces.append(piece)
        size += len(piece)
        if number >= most or size >= LARGEST:
            break
    every = random.choice((1, 50, len(pieces)))
    every = max(every, len(pieces) // 200)  # each step is a task's turn
    talk.steps += [b"".join(pieces[begin : begin + every]) for begin in range(0, len(pieces), every)]
    return Story(make.__name__.strip("_").replace("_", " "), talk.steps)


def _rapid_resets(talk: Talk) -> Iterator[bytes]:
    """CVE-2023-44487."""
    method = talk.random.choice(("Health", "BlockExchange", "StreamBlocks", "Nothing"))
    encoded = header_block(talk.encoder, call_headers(method))
    while True:
        stream = talk.next_stream()
        yield frame(http.HEADERS, http.END_HEADERS, stream, encoded) + http.reset(stream)
        encoded = header_block(talk.encoder, call_headers(method))


def _resets_that_the_server_makes(talk: Talk) -> Iterator[bytes]:
    """Each call is broken so that the server has to reset it."""
    encoded = header_block(talk.encoder, call_headers("Health"))
    while True:
        stream = talk.next_stream()
        yield frame(http.HEADERS, http.END_HEADERS, stream, encoded) + http.window_update(stream, http.LARGEST_WINDOW)
        encoded = header_block(talk.encoder, call_headers("Health"))


def _calls(talk: Talk) -> Iterator[bytes]:
    while True:
        stream = talk.next_stream()
        encoded = header_block(talk.encoder, call_headers("Health"))
        yield frame(http.HEADERS, http.END_HEADERS, stream, encoded) + frame(http.DATA, http.END_STREAM, stream, message(b""))


def _calls_that_are_not_ended(talk: Talk) -> Iterator[bytes]:
    while True:
        encoded = header_block(talk.encoder, call_headers("Register"))
        yield frame(http.HEADERS, http.END_HEADERS, talk.next_stream(), encoded)


def _continuations(talk: Talk) -> Iterator[bytes]:
    stream = talk.next_stream()
    yield frame(http.HEADERS, 0, stream, header_block(talk.encoder, call_headers("Health")))
    payload = talk.random.choice(
        (b"", b"\x00\x01a\x01b", b"\x20" * 100, b"\x00\x01a\x7f\x81\x7f" + b"x" * 16_384, bytes(200_000))
    )
    while True:
        yield frame(http.CONTINUATION, 0, stream, payload)


def _pings(talk: Talk) -> Iterator[bytes]:
    while True:
        yield frame(http.PING, 0, 0, bytes(8))


def _settings_again(talk: Talk) -> Iterator[bytes]:
    while True:
        yield http.settings(*(((http.INITIAL_WINDOW_SIZE, talk.random.getrandbits(16)),) * talk.random.randrange(3)))


def _empty_data(talk: Talk) -> Iterator[bytes]:
    stream = talk.begin("BlockExchange")
    while True:
        yield frame(http.DATA, talk.random.choice((0, http.PADDED)), stream, b"\0" if talk.random.random() < 0.01 else b"")


def _data_in_crumbs(talk: Talk) -> Iterator[bytes]:
    """A message of two bytes a frame, which is never whole."""
    stream = talk.begin("Register")
    yield frame(http.DATA, 0, stream, message(b"", length=60_000))
    while True:
        yield frame(http.DATA, 0, stream, b"xy")


def _messages_without_content(talk: Talk) -> Iterator[bytes]:
    name = f"org.example.fuzz-{talk.random.randrange(PLUGINS)}"
    talk.send(talk.begin("Register"), message(register(name)), end=True)
    stream = talk.begin("BlockExchange")
    content = talk.random.choice((b"", proto_field(26, b""), proto_field(24, b""), proto_field(34, proto_field(1, 9)), b"\xff"))
    many = message(content) * 1000
    while True:
        yield frame(http.DATA, 0, stream, many[: 1000 * (5 + len(content))])


def _fields(talk: Talk) -> Iterator[bytes]:
    """Messages that take long to read."""
    stream = talk.begin("StreamBlocks")
    while True:
        yield frame(http.DATA, 0, stream, message(proto_field(900, b"") * 4_000))
        stream = talk.next_stream()
        yield frame(http.HEADERS, http.END_HEADERS, stream, header_block(talk.encoder, call_headers("StreamBlocks")))


def _window_updates(talk: Talk) -> Iterator[bytes]:
    stream = talk.begin("StreamBlocks") if talk.random.random() < 0.5 else 0
    if talk.random.random() < 0.5:
        talk.steps.append(http.settings((http.INITIAL_WINDOW_SIZE, 0)))
    while True:
        yield http.window_update(stream, 1)


def _priorities(talk: Talk) -> Iterator[bytes]:
    while True:
        yield frame(http.PRIORITY, 0, 1 + 2 * talk.random.getrandbits(29), talk.random.getrandbits(31).to_bytes(4) + b"\x05")


def _unknown_frames(talk: Talk) -> Iterator[bytes]:
    while True:
        yield frame(0xFA, 0, 0, b"")


def _trailers(talk: Talk) -> Iterator[bytes]:
    while True:
        stream = talk.next_stream()
        yield frame(http.HEADERS, http.END_HEADERS, stream, header_block(talk.encoder, call_headers("BlockExchange")))
        yield frame(http.HEADERS, http.END_HEADERS | http.END_STREAM, stream, header_block(talk.encoder, [("x", "y")]))


def _nothing(talk: Talk) -> Iterator[bytes]:
    yield b"\x00\x00"


_FLOODS: tuple[Callable[[Talk], Iterator[bytes]], ...] = (
    _rapid_resets,
    _resets_that_the_server_makes,
    _calls,
    _calls_that_are_not_ended,
    _continuations,
    _pings,
    _settings_again,
    _empty_data,
    _data_in_crumbs,
    _messages_without_content,
    _fields,
    _window_updates,
    _priorities,
    _unknown_frames,
    _trailers,
    _nothing,
)


# ---- what is held ----------------------------------------------------------------------------------------------------------


def held(random: Random) -> Story:
    """Many peers that each begin something large and do not end it."""
    talk = Talk(random)
    encoded = header_block(talk.encoder, call_headers(random.choice(("Register", "BlockExchange"))))
    begin = frame(http.HEADERS, http.END_HEADERS, 1, encoded)
    match random.randrange(4):
        case 0:  # a header block in frames as large as they may be
            steps = [frame(http.HEADERS, 0, 1, encoded), *[frame(http.CONTINUATION, 0, 1, bytes(250_000))] * 60]
        case 1:  # a frame without its end
            steps = [begin, frame(http.DATA, 0, 1, message(bytes(250_000)), length=262_144)]
        case 2:  # messages without an end, on as many streams as there may be
            steps = [begin, frame(http.DATA, 0, 1, message(bytes(50_000), length=60_000))]
            for number in range(1, 16):
                block_ = header_block(talk.encoder, call_headers("Register"))
                steps.append(frame(http.HEADERS, http.END_HEADERS, 1 + 2 * number, block_))
                steps.append(frame(http.DATA, 0, 1 + 2 * number, message(bytes(50_000), length=60_000)))
        case _:  # another kind of frame, whose length nobody bounds but the setting
            steps = [frame(random.choice((http.PING, http.GOAWAY, 0xFA)), 0, 0, bytes(250_000), length=262_144)]
    return Story("held", [*talk.steps, *steps], peers=random.choice((4, 20)))


_KINDS: dict[Callable[[Random], Story], float] = {sound: 3, wild: 4, mutated: 4, plugin: 2, flood: 1, held: 0.3}
