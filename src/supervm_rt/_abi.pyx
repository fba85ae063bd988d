"""The only code that sees include/: loads plugin libraries and reads what they say.

All state here is guarded by the GIL; the module declares itself incompatible with free threading. What plugins call is the C
code of _native/, which never takes the GIL.
"""

import fcntl
import hashlib
import mmap
import os
import time
import warnings
from dataclasses import dataclass

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_XDECREF
from libc.errno cimport EMFILE, ENOMEM, EUSERS, errno
from libc.string cimport memcpy, memset

from supervm_rt.errors import HostError, LifecycleError, LoadError, RingCorrupt, SlotsExhausted

cdef extern from "<string.h>" nogil:
    size_t strnlen(const char *text, size_t limit)

cdef extern from "<unistd.h>" nogil:
    int close_descriptor "close"(int descriptor)

cdef extern from "Python.h":
    ctypedef struct PyInterpreterState:
        pass
    ctypedef struct PyThreadState:
        unsigned long native_thread_id
    PyInterpreterState *PyInterpreterState_Head()
    PyInterpreterState *PyInterpreterState_Next(PyInterpreterState *interpreter)
    PyThreadState *PyInterpreterState_ThreadHead(PyInterpreterState *interpreter)
    PyThreadState *PyThreadState_Next(PyThreadState *thread)

SLOT_COUNT = SLOTS

KIND_BLOCK = <int>RECORD_BLOCK
KIND_REORG = <int>RECORD_REORG
KIND_FINALIZED = <int>RECORD_FINALIZED
KIND_END_OF_INPUT = <int>RECORD_END_OF_INPUT

MESSAGE_LOG = <int>MESSAGE_LOG_KIND
MESSAGE_METRIC = <int>MESSAGE_METRIC_KIND
MESSAGE_TRANSACTION = <int>MESSAGE_TRANSACTION_KIND

STATUS_NAMES = {
    0: "OK",
    -1: "INVALID_ARGUMENT",
    -2: "NOT_GRANTED",
    -3: "TOO_LARGE",
    -4: "QUEUE_FULL",
    -5: "NO_ROUTE",
    -6: "STOPPING",
    -7: "WOULD_BLOCK",
    -8: "BUSY",
    -9: "NOT_FOUND",
    -10: "WRONG_STATE",
    -11: "NO_MEMORY",
    -12: "TIMED_OUT",
    -13: "UNREACHABLE",
}

cdef enum:
    MAX_MANIFEST_BYTES = 1 << 20
    DEFAULT_RING_BYTES = 16 << 20
    DEFAULT_SIDE_RING_BYTES = 4 << 20
    DEFAULT_READ_BYTES = 4 << 20
    DEFAULT_HEARTBEAT_MS = 10000
    NAME_BYTES = 16

cdef int64_t RELEASE_TIMEOUT_NS = 5000000000
SETTLE_SECONDS = 0.5
MFD_EXEC = 0x0010
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@cython.final
cdef class SealedLibrary:
    """The bytes of one library in a sealed memfd: what was hashed is what is loaded."""

    cdef readonly int fd
    cdef readonly bytes sha256
    cdef readonly object size

    def __cinit__(self):
        self.fd = -1

    def __init__(self, data):
        if self.fd != -1:
            raise TypeError("a sealed library is made once")
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        try:
            self.fd = os.memfd_create("supervm-plugin", flags | MFD_EXEC)
        except OSError:  # Kernels before 6.3 do not know the flag, and need none.
            self.fd = os.memfd_create("supervm-plugin", flags)
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(self.fd, rest):]
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)
        self.size = os.fstat(self.fd).st_size
        digest = hashlib.sha256()
        if self.size:
            with mmap.mmap(self.fd, self.size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as content:
                digest.update(content)
        self.sha256 = digest.digest()

    def close(self):
        """Closes the memfd. A library that was loaded from it stays."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __dealloc__(self):
        if self.fd >= 0:
            close_descriptor(self.fd)  # not by os.close: at the end of the interpreter there may be no os any more


cdef bytes tail(frame_core *core, Py_ssize_t offset, Py_ssize_t length):
    if length == 0:
        return b""
    return PyBytes_FromStringAndSize(<const char *>frame_tails(core) + offset, length)


@cython.no_gc
@cython.freelist(8192)
cdef class Frame:
    """One thing that a plugin said, in the order in which it said it. A read-only buffer over the payload.

    Exporting the buffer pins the frame's place in the ring until the export is released. A frame that is merely kept is copied
    out when the ring needs its place. Of a plugin in another process, the ring is one of the host's own, which all that it wrote
    was copied to before it was looked into. Frames may outlive their plugin.
    """

    def __init__(self):
        raise TypeError("frames come from NativePlugin.read")

    def __dealloc__(self):
        frame_drop(&self.core)
        Py_XDECREF(self.source)

    @property
    def kind(self):
        return self.core.header.kind

    @property
    def height(self):
        return None if self.core.header.height == HEIGHT_UNKNOWN else self.core.header.height

    @property
    def final_height(self):
        return None if self.core.header.final_height == HEIGHT_UNKNOWN else self.core.header.final_height

    @property
    def time(self):
        """Nanoseconds since the epoch."""
        return None if self.core.header.time == TIME_UNKNOWN else self.core.header.time

    @property
    def hash(self):
        return tail(&self.core, 0, self.core.header.hash_length)

    @property
    def parent(self):
        return tail(&self.core, self.core.header.hash_length, self.core.header.parent_length)

    @property
    def weight(self):
        if self.core.header.weight_length == 0:
            return None
        offset = self.core.header.hash_length + self.core.header.parent_length
        return int.from_bytes(tail(&self.core, offset, self.core.header.weight_length), "little")

    @property
    def position(self):
        offset = self.core.header.hash_length + self.core.header.parent_length + self.core.header.weight_length
        return tail(&self.core, offset, self.core.header.position_length)

    @property
    def to_height(self):
        """KIND_REORG: the last height that stays (height holds from_height)."""
        return self.core.header.to_height if self.core.header.kind == RECORD_REORG else None

    @property
    def orphans(self):
        """KIND_REORG: ids that leave, tip first. Empty for other kinds."""
        cdef Py_ssize_t size = self.core.header.item_length
        if size == 0:
            return []
        payload = bytes(self)
        return [payload[start:start + size] for start in range(0, len(payload), size)]

    @property
    def generation(self):
        return self.core.generation

    def __len__(self):
        return self.core.header.payload_length

    def __bytes__(self):
        if self.core.record == NULL:
            return b""
        return PyBytes_FromStringAndSize(<const char *>frame_payload(&self.core), self.core.header.payload_length)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.core.record == NULL:
            raise BufferError("an empty frame has no buffer")
        if not frame_pin(&self.core):
            raise MemoryError
        try:
            PyBuffer_FillInfo(buffer, self, <void *>frame_payload(&self.core), self.core.header.payload_length, True, flags)
        except:
            frame_unpin(&self.core)
            raise

    def __releasebuffer__(self, Py_buffer *buffer):
        frame_unpin(&self.core)


@dataclass(frozen=True)
class Message:
    """One record of the side ring: a log line, a metric sample or a transaction."""

    kind: int
    level: int
    text: str
    value: float
    data: bytes


@dataclass(frozen=True)
class RingStatistics:
    """Counters of one plugin's rings, since load."""

    capacity: int
    used: int
    pinned_frames: int
    frames: int
    bytes: int
    waits: int
    wakeups: int
    copied_out: int
    messages: int
    dropped_messages: int


cdef str readable(const uint8_t *text, Py_ssize_t length):
    """Text of a plugin that can go to a terminal or a log: no control characters, nothing undecodable."""
    decoded = PyBytes_FromStringAndSize(<const char *>text, length).decode("utf-8", "replace")
    if decoded.isprintable():
        return decoded
    return "".join([letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in decoded])


cdef list take_frames(c_channel *channel, Py_ssize_t max_frames, Py_ssize_t max_bytes, str who):
    cdef list frames = []
    cdef Frame frame
    cdef reader *source = channel.reader
    cdef Py_ssize_t taken = 0
    cdef int64_t size = 0
    cdef int found = reader_look(source)
    while found > 0 and taken < max_frames and size < max_bytes:
        frame = Frame.__new__(Frame)
        found = reader_next(source, &frame.core)
        if found > 0:
            size += frame.core.header.payload_length
            taken += 1
            frames.append(frame)
    if found == -2 and taken == 0:
        raise MemoryError
    if found < 0 and taken == 0:
        raise RingCorrupt(f"{who}: corrupt ring", remedy="it wrote where it must not, and is not to be trusted; ask its author")
    return frames


cdef list take_messages(c_channel *channel, Py_ssize_t max_messages, str who):
    cdef side_ring *side = &channel.side
    cdef message_header header
    cdef const uint8_t *text
    cdef const uint8_t *data
    cdef int found
    cdef list messages = []
    while len(messages) < max_messages:
        found = side_ring_next(side, &header, &text, &data)
        if found < 0:
            raise RingCorrupt(
                f"{who}: corrupt message ring", remedy="it wrote where it must not, and is not to be trusted; ask its author"
            )
        if found == 0:
            break
        if header.kind == MESSAGE_TRANSACTION_KIND:
            content = PyBytes_FromStringAndSize(<const char *>data, header.data_length)
        else:
            content = b""
        message = Message(header.kind, header.level, readable(text, header.text_length), header.value, content)
        side_ring_done(side, &header)
        messages.append(message)
    return messages


cdef shutdown_reason(c_channel *channel):
    cdef uint64_t word = channel_words(channel).shutdown
    return <int32_t><uint32_t>word if word & PLUGIN_SHUTDOWN_ASKED else None


cdef ring_statistics(c_channel *channel):
    cdef reader *source = channel.reader
    return RingStatistics(
        capacity=source.ring.capacity,
        used=reader_used(source),
        pinned_frames=source.pinned_frames,
        frames=source.frames,
        bytes=source.bytes,
        waits=source.ring.producer.waits,
        wakeups=source.ring.producer.wakeups,
        copied_out=source.copied_out,
        messages=channel.side.messages,
        dropped_messages=channel_words(channel).dropped_messages,
    )


cdef set python_threads():
    """Kernel ids of all threads that have a Python thread state, whoever started them."""
    cdef PyInterpreterState *interpreter = PyInterpreterState_Head()
    cdef PyThreadState *thread
    found = set()
    while interpreter != NULL:
        thread = PyInterpreterState_ThreadHead(interpreter)
        while thread != NULL:
            found.add(thread.native_thread_id)
            thread = PyThreadState_Next(thread)
        interpreter = PyInterpreterState_Next(interpreter)
    return found


cdef threads_unknown(error):
    return HostError(f"the threads of this process cannot be listed ({error})", remedy="raise the limit (ulimit -n)")


cdef dict list_tasks():
    """The threads of this process: kernel id to (start time, name). The two of them tell an id that was used again."""
    tasks = {}
    try:
        entries = os.listdir("/proc/self/task")
    except OSError as error:
        raise threads_unknown(error) from None
    for entry in entries:
        try:
            with open(f"/proc/self/task/{entry}/stat", "rb") as file:
                stat = file.read()
        except (FileNotFoundError, ProcessLookupError):  # It ended meanwhile.
            continue
        except OSError as error:  # To overlook a thread would be to unmap the code that it runs.
            raise threads_unknown(error) from None
        name, _, rest = stat.partition(b"(")[2].rpartition(b")")
        tasks[int(entry)] = (int(rest.split()[19]), name)
    return tasks


cdef enum Phase:
    PHASE_LOADED
    PHASE_GRANTED
    PHASE_INITIALISED
    PHASE_INIT_FAILED
    PHASE_STARTED
    PHASE_STOPPED
    PHASE_ABANDONED
    PHASE_CLOSED

ctypedef int (*lifecycle_call)() noexcept nogil

cdef unsigned int loads = 0


@cython.final
cdef class NativePlugin:
    """A plugin library loaded into one slot of this process.

    Construction loads (dlopen) and so runs the library's constructors; construction, manifest_json, init, start, stop and close
    run foreign code without the GIL and may never return: call them on a thread that may be lost.
    """

    cdef c_slot *place
    cdef library code
    cdef Phase phase
    cdef int calls  # Foreign calls that have not returned.
    cdef bint closing
    cdef char marker[NAME_BYTES]
    cdef dict tasks_before
    cdef object last_statistics
    cdef readonly int slot
    cdef readonly object generation
    cdef readonly object max_payload

    def __init__(
        self,
        SealedLibrary library not None,
        *,
        ring_bytes=DEFAULT_RING_BYTES,
        side_ring_bytes=DEFAULT_SIDE_RING_BYTES,
        generation=1,
        heartbeat_interval_ms=DEFAULT_HEARTBEAT_MS,
    ):
        cdef loader_result result
        cdef char before[NAME_BYTES]
        cdef char detail[512]
        cdef int fd = library.fd
        global loads
        if self.place != NULL:
            raise TypeError("a plugin is loaded once")
        if fd < 0:
            raise ValueError("the sealed library is closed")
        self.tasks_before = {task: born for task, (born, _) in list_tasks().items()}
        self.place = take_slot(ring_bytes, side_ring_bytes, generation, heartbeat_interval_ms)
        self.slot = slot_number(self.place)
        self.generation = generation
        self.max_payload = sink_max_payload(self.place)
        marker = f"svm-{self.slot}-{loads:x}".encode()
        loads += 1
        memset(self.marker, 0, NAME_BYTES)
        for index, byte in enumerate(marker[:NAME_BYTES - 1]):
            self.marker[index] = byte
        memcpy(self.place.releaser.name, self.marker, NAME_BYTES)
        with nogil:
            thread_name_borrow(before, self.marker)
            result = loader_open(&self.code, fd, detail, sizeof(detail))
            thread_name_restore(before)
        if result == LOADER_OK:
            return
        if loader_is_mapped(&self.code):
            self.phase = PHASE_ABANDONED
        else:
            self.phase = PHASE_CLOSED
            slot_give_back(self.place)
            self.place = NULL
        text = detail.decode("utf-8", "replace")
        if result == LOADER_MISSING_EXPORT:
            raise LoadError(
                f"the library does not export {text}",
                remedy="a plugin exports the five functions of supervm/plugin.h with C linkage and default visibility",
            )
        if result == LOADER_NOT_NEW:
            raise LoadError(
                "loading gave a library that was loaded before, not these bytes",
                remedy="seal the bytes anew for each instance",
            )
        raise LoadError(
            f"the dynamic linker refuses the library: {text}",
            remedy="look at what it needs with ldd, and build it for this machine and C library",
        )

    cdef c_slot *use(self) except NULL:
        """The slot, while the plugin is not closed."""
        if self.place == NULL or self.phase == PHASE_CLOSED:
            raise LifecycleError("the plugin is closed", remedy="load it again")
        return self.place

    cdef int call(self, lifecycle_call function) except? -1:
        """Runs foreign code under the name that its threads inherit."""
        cdef char before[NAME_BYTES]
        cdef int answer
        self.calls += 1
        with nogil:
            thread_name_borrow(before, self.marker)
            answer = function()
            thread_name_restore(before)
        self.calls -= 1
        channel_notify(self.place.channel)
        return answer

    cdef refuse(self, str what, str remedy):
        raise LifecycleError(f"{what} of the plugin in slot {self.slot} was called in the wrong state", remedy=remedy)

    @property
    def event_fd(self):
        """Becomes readable when the plugin said something while the host slept; see prepare_wait."""
        return self.use().channel.event_fd

    def manifest_json(self):
        """What plugin_get_manifest_json returned, freed again by plugin_free_string. Raises LoadError for NULL or above 1 MiB."""
        cdef char before[NAME_BYTES]
        cdef const char *text
        cdef size_t length = 0
        self.use()
        if self.calls or self.closing:
            self.refuse("manifest_json", "wait until the other call has returned")
        self.calls += 1
        with nogil:
            thread_name_borrow(before, self.marker)
            text = self.code.get_manifest_json()
            thread_name_restore(before)
            if text != NULL:
                length = strnlen(text, MAX_MANIFEST_BYTES + 1)
        try:
            content = PyBytes_FromStringAndSize(text, length) if text != NULL and length <= MAX_MANIFEST_BYTES else None
        finally:
            with nogil:
                if text != NULL:
                    thread_name_borrow(before, self.marker)
                    self.code.free_string(<char *>text)
                    thread_name_restore(before)
            self.calls -= 1
        if text == NULL:
            raise LoadError("plugin_get_manifest_json returned NULL", remedy="return the manifest as a JSON text")
        if content is None:
            raise LoadError("plugin_get_manifest_json returned more than 1 MiB", remedy="return the manifest only, with a NUL after it")
        return content

    def grant(self, *, capabilities, configuration, position):
        """Says what host_get_extension and the four callbacks may answer from now on. To be called before init, once."""
        cdef uint32_t grants = 0
        cdef bytes configuration_bytes = configuration
        cdef bytes position_bytes = position or None
        cdef const uint8_t *position_pointer = NULL
        cdef uint64_t position_length = 0
        self.use()
        if self.phase != PHASE_LOADED:
            self.refuse("grant", "call it once, before init")
        if "block_stream" in capabilities:
            grants |= SLOT_BLOCK_STREAM
        if "submit_tx" in capabilities:
            grants |= SLOT_SUBMIT_TX
        if position_bytes is not None:
            position_pointer = position_bytes
            position_length = len(position_bytes)
        if slot_grant(self.place, grants, configuration_bytes, len(configuration_bytes), position_pointer, position_length) != 0:
            raise MemoryError
        self.phase = PHASE_GRANTED

    def attach_network(self, int descriptor):
        """Gives the plugin supervm.net/1 over a copy of this socket, which holds the host's greeting. Before grant, once."""
        self.use()
        if self.phase != PHASE_LOADED:
            self.refuse("attach_network", "call it once, before grant")
        error = network_attach(self.place, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3))
        if error != 0:
            raise OSError(error, os.strerror(error))

    def set_route(self, routed):
        """Says whether the host has a way for transactions that the plugin submits. Without one they answer NO_ROUTE."""
        self.use().channel.reader.ring.host.route = 1 if routed else 0

    def init(self):
        """Calls plugin_init and returns its answer."""
        cdef char before[NAME_BYTES]
        cdef int answer
        self.use()
        if self.phase != PHASE_GRANTED or self.closing:
            self.refuse("init", "call it once, after grant")
        self.phase = PHASE_INIT_FAILED
        self.calls += 1
        with nogil:
            thread_name_borrow(before, self.marker)
            answer = self.code.init(&self.place.vtable)
            thread_name_restore(before)
        self.calls -= 1
        if answer == 0 and self.phase == PHASE_INIT_FAILED:
            self.phase = PHASE_INITIALISED
        channel_notify(self.place.channel)
        return answer

    def start(self):
        """Calls plugin_start and returns its answer."""
        self.use()
        if self.phase != PHASE_INITIALISED or self.closing:
            self.refuse("start", "call it once, after init answered 0")
        self.phase = PHASE_STARTED
        slot_sign_of_life(self.place)
        return self.call(self.code.start)

    def stop(self):
        """Ends all waits as begin_stop does, calls plugin_stop and returns its answer. start may still be running."""
        self.use()
        if self.closing or (self.phase != PHASE_INITIALISED and self.phase != PHASE_STARTED):
            self.refuse("stop", "call it once, after init answered 0")
        self.phase = PHASE_STOPPED
        slot_begin_stop(self.place)
        answer = self.call(self.code.stop)
        slot_close(self.place)
        return answer

    def begin_stop(self):
        """Ends every wait of the plugin inside the host, now and from now on, with SUPERVM_STOPPING."""
        slot_begin_stop(self.use())

    def end_calls(self):
        """Answers nothing any more, log lines and metrics included: for a plugin whose plugin_stop is not called."""
        slot_close(self.use())

    def read(self, Py_ssize_t max_frames, Py_ssize_t max_bytes=DEFAULT_READ_BYTES):
        """Takes the next frames, at most max_frames, and stops after the first that reaches max_bytes of payload. Never waits."""
        return take_frames(self.use().channel, max_frames, max_bytes, f"the plugin in slot {self.slot}")

    def read_messages(self, Py_ssize_t max_messages):
        """Takes the next messages of the side ring, at most max_messages. Never waits."""
        return take_messages(self.use().channel, max_messages, f"the plugin in slot {self.slot}")

    def prepare_wait(self):
        """Announces that the host is about to sleep on event_fd. False: something is already there, do not sleep."""
        return channel_prepare_wait(self.use().channel)

    def finish_wait(self):
        """Takes the announcement back and empties event_fd. Call after every prepare_wait that answered True."""
        channel_finish_wait(self.use().channel)

    @property
    def shutdown_request(self):
        """The reason code of host_request_shutdown, None until it was called."""
        return shutdown_reason(self.use().channel)

    @property
    def heartbeat_asked(self):
        """Whether the plugin asked for supervm.heartbeat/1."""
        return channel_words(self.use().channel).heartbeat_asked != 0

    @property
    def last_sign_of_life(self):
        """CLOCK_MONOTONIC nanoseconds of the last beat, publish or start; now, while a thread waits inside the sink."""
        return channel_last_sign(self.use().channel)

    def threads(self):
        """Kernel ids of living threads that the plugin started.

        Whatever thread runs code of the plugin bears a name of this load's own meanwhile, and a new thread inherits its maker's
        name: every thread of that name belongs to the plugin. One that renamed itself is told by exclusion: it is younger than
        the load, and neither Python nor another plugin's name accounts for it. If no other plugin is loaded it is this one's;
        otherwise its stack decides, and one whose stack cannot be read counts, since unmapping its code would end the process.
        """
        self.use()
        mine = self.marker[:NAME_BYTES].rstrip(b"\0")
        tasks = list_tasks()
        known = python_threads()
        alone = slot_used_count() == 1
        found = []
        for task, (born, name) in sorted(tasks.items()):
            if task == self.place.releaser.thread_id or task in known or self.tasks_before.get(task) == born:
                continue
            if name == mine:
                found.append(task)
            elif name[:4] != b"svm-" and (alone or thread_stack_refers(task, self.code.base, self.code.end) != THREAD_STACK_CLEAN):
                found.append(task)
        return found

    def close(self):
        """Unmaps the library and gives the slot back.

        Frames that still live are copied out first where they can be; a frame whose buffer is exported keeps the ring's mapping,
        not the library. Raises LifecycleError where the library did not leave the process, threads of it remain, or a buffer in
        its own memory is still exported: then the plugin counts as abandoned.
        """
        cdef char before[NAME_BYTES]
        cdef c_bool done
        if self.place == NULL or self.phase == PHASE_CLOSED:
            return
        if self.phase == PHASE_ABANDONED:
            raise LifecycleError(f"the plugin in slot {self.slot} was abandoned", remedy="restart the process to get the slot back")
        if self.closing:
            raise LifecycleError(f"the plugin in slot {self.slot} is being closed", remedy="close it once")
        self.closing = True
        slot_begin_stop(self.place)
        if self.calls:
            self.give_up("a call of it has not returned", "let init, start and stop return in time")
        slot_close(self.place)
        self.refuse_threads()
        if slot_sink_is_busy(self.place):
            self.give_up("it never committed what it reserved", "follow each reserve by commit or abandon")
        kept = reader_detach(self.place.channel.reader)
        if kept:
            self.give_up(f"{kept} buffers in its memory are still in use", "release the frames' buffers before close")
        with nogil:
            done = releaser_finish(self.place.releaser, RELEASE_TIMEOUT_NS)
        if not done:
            self.give_up("a release callback has not returned", "release must not wait")
        self.refuse_threads()  # Callbacks that ran since can have started some.
        with nogil:
            thread_name_borrow(before, self.marker)
            done = loader_close(&self.code)
            thread_name_restore(before)
        if not done:
            self.give_up("its library did not leave the process", "run it in a child process")
        self.last_statistics = self.statistics()
        slot_give_back(self.place)
        self.phase = PHASE_CLOSED
        self.place = NULL

    cdef refuse_threads(self):
        try:
            threads = self.settle()
        except HostError as error:
            self.give_up(error.message, error.remedy)
        if threads:
            names = ", ".join(map(str, threads))
            self.give_up(f"it left threads behind ({names})", "plugin_stop must return only when its threads have ended")

    cdef list settle(self):
        """The threads that are left when those that are about to end had the time to."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            threads = self.threads()
            if not threads or time.monotonic() > deadline:
                return threads
            time.sleep(0.002)

    cdef give_up(self, str why, str remedy):
        self.abandon()
        raise LifecycleError(f"the plugin in slot {self.slot} cannot be unloaded: {why}", remedy=remedy)

    def abandon(self):
        """Gives the plugin up: slot and mapping stay for the life of the process."""
        if self.place == NULL or self.phase == PHASE_CLOSED:
            return
        slot_begin_stop(self.place)
        slot_close(self.place)
        self.phase = PHASE_ABANDONED

    @property
    def closed(self):
        return self.phase == PHASE_CLOSED

    def statistics(self):
        """Counters of this plugin's rings; those at its end once it is closed."""
        if self.last_statistics is not None:
            return self.last_statistics
        return ring_statistics(self.use().channel)

    def __del__(self):
        if self.place != NULL and self.phase != PHASE_CLOSED and self.phase != PHASE_ABANDONED:
            self.abandon()
            warnings.warn(f"the plugin in slot {self.slot} was neither closed nor abandoned", ResourceWarning, stacklevel=1)


@cython.final
cdef class SharedChannel:
    """The host's end of the rings of a plugin that runs in another process, which may write anything into them at any time."""

    cdef c_channel ends
    cdef bint is_open
    cdef str who
    cdef object last_statistics

    def __init__(self, str who not None, *, ring_bytes=DEFAULT_RING_BYTES, side_ring_bytes=DEFAULT_SIDE_RING_BYTES, generation=1):
        """who: names the plugin in errors."""
        if self.is_open:
            raise TypeError("a channel is made once")
        check_ring_sizes(ring_bytes, side_ring_bytes)
        error = channel_create(&self.ends, ring_bytes, side_ring_bytes, generation, NULL)
        if error != 0:
            raise_ring_error(error)
        self.who = who
        self.is_open = True

    cdef c_channel *use(self) except NULL:
        if not self.is_open:
            raise LifecycleError(f"{self.who}: its channel is closed", remedy="load it again")
        return &self.ends

    @property
    def event_fd(self):
        """Becomes readable when the plugin said something while the host slept; see prepare_wait."""
        return self.use().event_fd

    @property
    def descriptors(self):
        """What the child needs: the event, then the plugin's and the host's words of the block ring and of the side ring."""
        cdef c_channel *ends = self.use()
        return (
            ends.event_fd,
            ends.reader.ring.producer_fd,
            ends.reader.ring.host_fd,
            ends.side.ring.producer_fd,
            ends.side.ring.host_fd,
        )

    def close_descriptors(self):
        """Closes the rings' descriptors: the child has its own."""
        channel_close_fds(self.use())

    def set_route(self, routed):
        """Says whether the host has a way for transactions that the plugin submits. Without one they answer NO_ROUTE."""
        self.use().reader.ring.host.route = 1 if routed else 0

    def read(self, Py_ssize_t max_frames, Py_ssize_t max_bytes=DEFAULT_READ_BYTES):
        """Takes the next frames, at most max_frames, and stops after the first that reaches max_bytes of payload. Never waits."""
        return take_frames(self.use(), max_frames, max_bytes, self.who)

    def read_messages(self, Py_ssize_t max_messages):
        """Takes the next messages of the side ring, at most max_messages. Never waits."""
        return take_messages(self.use(), max_messages, self.who)

    def prepare_wait(self):
        """Announces that the host is about to sleep on event_fd. False: something seems to be there, do not sleep."""
        return channel_prepare_wait(self.use())

    def finish_wait(self):
        """Takes the announcement back and empties event_fd. Call after every prepare_wait that answered True."""
        channel_finish_wait(self.use())

    def begin_stop(self):
        """Ends every wait of the plugin inside the sink, now and from now on, with SUPERVM_STOPPING."""
        channel_begin_stop(self.use())

    @property
    def shutdown_request(self):
        """The reason code of host_request_shutdown, None until it was called."""
        return shutdown_reason(self.use())

    @property
    def heartbeat_asked(self):
        """Whether the plugin asked for supervm.heartbeat/1."""
        return channel_words(self.use()).heartbeat_asked != 0

    @property
    def last_sign_of_life(self):
        """CLOCK_MONOTONIC nanoseconds of the last beat, publish or start, as the plugin claims; it can lie."""
        return channel_last_sign(self.use())

    def statistics(self):
        """Counters of the rings; those at the end once it is closed. Waits, wakeups and drops are the plugin's claims."""
        if self.last_statistics is not None:
            return self.last_statistics
        return ring_statistics(self.use())

    @property
    def closed(self):
        return not self.is_open

    def close(self):
        """Gives the rings up. Frames that still live are copied out first."""
        if not self.is_open:
            return
        self.last_statistics = ring_statistics(&self.ends)
        reader_detach(self.ends.reader)
        self.is_open = False
        channel_destroy(&self.ends)

    def __dealloc__(self):
        if self.is_open:
            reader_detach(self.ends.reader)
            channel_destroy(&self.ends)


cdef check_ring_sizes(uint64_t ring_bytes, uint64_t side_ring_bytes):
    for size in (ring_bytes, side_ring_bytes):
        if not RING_MINIMUM_CAPACITY <= size <= RING_MAXIMUM_CAPACITY or size & (size - 1):
            raise ValueError(f"a ring of {size} bytes: it must be a power of two from 64 KiB to 64 GiB")


cdef raise_ring_error(int error):
    if error == ENOMEM:
        raise MemoryError
    raise OSError(error, os.strerror(error))


cdef c_slot *take_slot(uint64_t ring_bytes, uint64_t side_ring_bytes, uint64_t generation, uint32_t interval_ms) except NULL:
    check_ring_sizes(ring_bytes, side_ring_bytes)
    cdef c_slot *place = slot_take(ring_bytes, side_ring_bytes, generation, interval_ms)
    if place != NULL:
        return place
    if errno == EUSERS:
        raise SlotsExhausted(
            f"all {SLOTS} slots for native plugins are in use, abandoned ones included",
            remedy="unload a plugin, or restart the process",
        )
    raise_ring_error(errno)


def printable(bytes text not None):
    """Text of a plugin as one that can go to a terminal or a log: no control characters, nothing undecodable."""
    return readable(text, len(text))


def slots_in_use():
    """How many slots are taken, abandoned plugins included."""
    return slot_used_count()
