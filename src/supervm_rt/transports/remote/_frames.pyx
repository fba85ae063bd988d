# cython: embedsignature=True
"""What a peer sends to messages, messages of remote plugins to frames, events of the feed to messages: the Python side of
``_native/``, where BlockMessage is read as it lies in the bytes (``message.c``) and written into just as many (``event.c``).

All state here is guarded by the GIL; the module declares itself incompatible with free threading.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from supervm_rt._abi cimport Frame, c_bool, frame_core
from supervm_rt.errors import MessageRefused
from supervm_rt.model.chain import Step

cdef extern from "message.h" nogil:
    enum: MESSAGE_MAX_BATCH
    enum: MESSAGE_MAX_DEPTH
    enum: MESSAGE_MAX_ORPHANS
    enum message_fault:
        MESSAGE_SOUND
        MESSAGE_ENDS_EARLY
        MESSAGE_LONG_VARINT
        MESSAGE_BAD_TAG
        MESSAGE_BAD_GROUP
        MESSAGE_TOO_DEEP
        MESSAGE_NOT_UTF8
        MESSAGE_OTHER_CHAIN
        MESSAGE_LONG_HASH
        MESSAGE_LONG_PARENT
        MESSAGE_LONG_WEIGHT
        MESSAGE_LONG_POSITION
        MESSAGE_BAD_TIME
        MESSAGE_STEP
        MESSAGE_GENESIS
        MESSAGE_HEIGHT
        MESSAGE_REORG_UPWARDS
        MESSAGE_MANY_ORPHANS
        MESSAGE_ORPHAN_LENGTH
        MESSAGE_FINAL_HASH
        MESSAGE_BATCH_IN_BATCH
        MESSAGE_NOT_IN_BATCH
        MESSAGE_LONG_BATCH
    enum message_body:
        MESSAGE_BATCH
    struct span:
        const uint8_t *bytes
        size_t length
    struct message:
        uint32_t body
        span chain
        span payload
        span hash
        span parent
        span weight
        span position
        span reorg_chain
        span finalized_hash
        uint64_t height
        uint64_t from_height
        uint64_t to_height
    struct batch:
        const message *message
        const uint8_t *place
        span rest
        size_t count
    message_fault message_read(span whole, span chain, message *message, size_t *at)
    c_bool batch_next(batch *batch, span chain, message *message, message_fault *fault, size_t *at)
    c_bool message_piece(const message *message, const uint8_t **place, span *piece)

cdef extern from "frame.h" nogil:
    c_bool frame_from_message(frame_core *frame, const message *message, size_t kept, uint64_t generation, c_bool *views)
    struct batch_frames:
        frame_core *frames
        c_bool *views
        size_t count
        message said
        message_fault fault
        size_t at
    c_bool frames_from_batch(
        batch_frames *frames, const message *message, span chain, size_t kept, uint64_t generation
    )
    void batch_frames_free(batch_frames *frames, size_t first)

cdef extern from "event.h":
    enum: EVENT_PREFIX_BYTES
    enum event_step:
        EVENT_NEW
        EVENT_UNDO
        EVENT_FINAL
    struct event:
        span chain
        uint64_t height
        span payload
        span json
        int64_t seconds
        span hash
        span parent
        event_step step
        span cursor
        span ir
        size_t head
        size_t tail
    size_t event_measure(event *event)
    uint8_t *event_write_head(const event *event, uint8_t *to)
    uint8_t *event_write_tail(const event *event, uint8_t *to)
    uint8_t *event_write_prefix(uint8_t *to, size_t length)
    size_t event_batch_head(size_t items)
    uint8_t *event_write_batch_head(uint8_t *to, size_t items)
    size_t event_item_head(size_t length)
    uint8_t *event_write_item_head(uint8_t *to, size_t length)

cdef extern from "Python.h":
    PyObject *raw_bytes "PyBytes_FromStringAndSize"(const char *content, Py_ssize_t size) except NULL
    char *start_of "PyBytes_AS_STRING"(PyObject *content)
    int _PyBytes_Resize(PyObject **content, Py_ssize_t size) except -1
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

ENCODING = {
    MESSAGE_ENDS_EARLY: "it ends inside a field",
    MESSAGE_LONG_VARINT: "a number has too many bytes",
    MESSAGE_BAD_TAG: "no field begins like this",
    MESSAGE_BAD_GROUP: "a group ends that did not begin",
    MESSAGE_TOO_DEEP: f"more than {MESSAGE_MAX_DEPTH} messages inside one another",
    MESSAGE_NOT_UTF8: "a text is not UTF-8",
}
cdef bytes NOTHING = b""
LARGE_MESSAGE = 4 << 20
"""From this length on a message is read without the GIL."""
cdef enum:
    LARGE = 4 << 20
REMEDY = "what a message may say is in proto/plugin_host.proto"


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Held:
    """Bytes that are not an object of type bytes, for as long as frames look into them."""

    cdef Py_buffer view
    cdef bint taken

    def __dealloc__(self):
        if self.taken:
            PyBuffer_Release(&self.view)


cdef object refusal(message_fault fault, const message *said, size_t at, size_t number, bint batched):
    if fault in ENCODING:
        return MessageRefused(f"the bytes are no BlockMessage: {ENCODING[fault]} (byte {at})", remedy=REMEDY)
    where = f"batch.blocks[{number}]" if batched else "the message"
    if fault == MESSAGE_OTHER_CHAIN:
        named = said.reorg_chain if said.reorg_chain.length and not said.chain.length else said.chain
        chain = PyBytes_FromStringAndSize(<const char *>named.bytes, <Py_ssize_t>min(named.length, <size_t>100)).decode(errors="replace")
        what = f"it names the chain {chain!a}, and the plugin registered with another"
    elif fault == MESSAGE_LONG_HASH:
        what = f"hash has {said.hash.length} bytes; at most 64 are allowed"
    elif fault == MESSAGE_LONG_PARENT:
        what = f"parent has {said.parent.length} bytes; at most 64 are allowed"
    elif fault == MESSAGE_LONG_WEIGHT:
        what = f"weight has {said.weight.length} bytes; at most 32 are allowed"
    elif fault == MESSAGE_LONG_POSITION:
        what = f"position has {said.position.length} bytes; at most 256 are allowed"
    elif fault == MESSAGE_BAD_TIME:
        what = "the nanos of timestamp are not between 0 and 999,999,999"
    elif fault == MESSAGE_STEP:
        what = "step is not STEP_NEW; a plugin says reorg for blocks that leave"
    elif fault == MESSAGE_GENESIS:
        what = f"genesis is said of a block at height {said.height}"
    elif fault == MESSAGE_HEIGHT:
        what = "18446744073709551615 is no height"
    elif fault == MESSAGE_REORG_UPWARDS:
        what = f"reorg.from_height is {said.from_height}, below reorg.to_height, {said.to_height}"
    elif fault == MESSAGE_MANY_ORPHANS:
        what = f"reorg names more than {MESSAGE_MAX_ORPHANS} blocks; they may be left out"
    elif fault == MESSAGE_ORPHAN_LENGTH:
        what = "reorg.orphan_block_hashes are not all of one length between 1 and 64 bytes"
    elif fault == MESSAGE_FINAL_HASH:
        what = f"finalized.hash has {said.finalized_hash.length} bytes; between 1 and 64 are allowed"
    elif fault == MESSAGE_BATCH_IN_BATCH:
        what = "it is itself a batch"
    elif fault == MESSAGE_NOT_IN_BATCH:
        what = "only blocks, reorg, finalized and end_of_input can be in a batch"
    else:
        what = f"a batch has at most {MESSAGE_MAX_BATCH} messages"
    return MessageRefused(f"{where} is not allowed: {what}", remedy=REMEDY)


cdef Frame frame_of(const message *said, size_t kept, uint64_t generation, object source):
    cdef c_bool views = False
    cdef Frame frame = Frame.__new__(Frame)
    if not frame_from_message(&frame.core, said, kept, generation, &views):
        raise MemoryError
    if views:
        Py_INCREF(source)
        frame.source = <PyObject *>source
    return frame


cdef list frames_of(const message *whole, span named, size_t kept, uint64_t generation, object source):
    cdef list frames = []
    cdef batch items
    cdef message said
    cdef message_fault fault = MESSAGE_SOUND
    cdef size_t at = 0
    items.message = whole
    items.place = NULL
    items.rest.bytes = NULL
    items.rest.length = 0
    items.count = 0
    while batch_next(&items, named, &said, &fault, &at):
        frames.append(frame_of(&said, kept, generation, source))
    if fault != MESSAGE_SOUND:
        raise refusal(fault, &said, at, items.count - 1, True)
    return frames


cdef list frames_of_large(const message *whole, span named, size_t kept, uint64_t generation, object source):
    """The same without the GIL."""
    cdef list frames = []
    cdef batch_frames found
    cdef Frame frame
    cdef size_t taken = 0
    cdef c_bool sound
    memset(&found, 0, sizeof(found))
    with nogil:
        sound = frames_from_batch(&found, whole, named, kept, generation)
    try:
        if not sound:
            if found.fault != MESSAGE_SOUND:
                raise refusal(found.fault, &found.said, found.at, found.count, True)
            raise MemoryError
        while taken < found.count:
            frame = Frame.__new__(Frame)
            frame.core = found.frames[taken]
            if found.views[taken]:
                Py_INCREF(source)
                frame.source = <PyObject *>source
            taken += 1
            frames.append(frame)
        return frames
    finally:
        batch_frames_free(&found, taken)


cdef bytes body_of(const message *said):
    cdef const uint8_t *place = NULL
    cdef span piece
    cdef size_t length = 0
    cdef bytes content
    cdef char *at
    with nogil:
        while message_piece(said, &place, &piece):
            length += piece.length
    content = PyBytes_FromStringAndSize(NULL, length)
    at = PyBytes_AS_STRING(content)
    place = NULL
    with nogil:
        while message_piece(said, &place, &piece):
            memcpy(at, piece.bytes, piece.length)
            at += piece.length
    return content


def hear(data, *, generation, bytes chain=None):
    """Reads one BlockMessage that a plugin sent.

    chain: what the plugin may name as its chain; None: anything. Returns (frames, None), or ([], (number, content)): the number
    of the body's field in BlockMessage, and the encoded submessage, which is sound as an encoding.

    A payload that is large beside the whole message is a view of data, which then lives as long as the frame; smaller ones are
    copied. A message of 4 MiB or more is read without the GIL, for a thread of its own. Raises MessageRefused, and TypeError
    where data is no contiguous buffer that nobody can write to.
    """
    cdef span whole
    cdef span named
    cdef message said
    cdef message_fault fault
    cdef size_t at = 0
    cdef uint64_t life = generation
    cdef Held held
    cdef object source = data
    named.bytes = NULL
    named.length = 0
    if chain is not None:
        named.bytes = <const uint8_t *>PyBytes_AS_STRING(chain)
        named.length = PyBytes_GET_SIZE(chain)
    if PyBytes_CheckExact(data):
        whole.bytes = <const uint8_t *>PyBytes_AS_STRING(data)
        whole.length = PyBytes_GET_SIZE(data)
    else:
        held = Held.__new__(Held)
        PyObject_GetBuffer(data, &held.view, PyBUF_SIMPLE)
        held.taken = True
        if not held.view.readonly:
            raise TypeError("a message whose bytes can change cannot be read")
        whole.bytes = <const uint8_t *>held.view.buf if held.view.len else <const uint8_t *>PyBytes_AS_STRING(NOTHING)
        whole.length = held.view.len
        source = held
    cdef bint large = whole.length >= LARGE
    if large:
        with nogil:
            fault = message_read(whole, named, &said, &at)
    else:
        fault = message_read(whole, named, &said, &at)
    if fault != MESSAGE_SOUND:
        raise refusal(fault, &said, at, 0, False)
    if said.body < MESSAGE_BATCH:
        return [frame_of(&said, whole.length, life, source)], None
    if said.body == MESSAGE_BATCH:
        if large:
            return frames_of_large(&said, named, whole.length, life, source), None
        return frames_of(&said, named, whole.length, life, source), None
    return [], (said.body, body_of(&said))


def payload_bytes(list frames):
    """Payload bytes of frames, all together."""
    cdef size_t size = 0
    cdef Frame frame
    for frame in frames:
        size += frame.core.header.payload_length
    return size


def first_frames(list frames, Py_ssize_t most, size_t size):
    """How many frames come before there are so many, or the one that reaches so many payload bytes, that one included."""
    cdef size_t have = 0
    cdef Py_ssize_t count = 0
    cdef Frame frame
    for frame in frames:
        if count >= most or have >= size:
            break
        have += frame.core.header.payload_length
        count += 1
    return count


# ---- events to messages ------------------------------------------------------------------------------------------------------

cdef enum:
    # From this length on a payload is not copied, but sent from where it lies.
    APART = 16384
    # No gRPC message can be longer.
    LONGEST = 0xffffffff

cdef object NEW = Step.NEW
cdef object UNDO = Step.UNDO


cdef inline void point(span *place, bytes value):
    place.bytes = <const uint8_t *>PyBytes_AS_STRING(value)
    place.length = PyBytes_GET_SIZE(value)


cdef inline int point_text(span *place, str value) except -1:
    cdef Py_ssize_t size = 0
    place.bytes = <const uint8_t *>PyUnicode_AsUTF8AndSize(value, &size)
    place.length = size
    return 0


cdef size_t gather(event *told, object said, object json, object ir, list kept, list payloads) except? 0:
    """Points to all that an event says, which ``kept`` holds on to, and measures it."""
    cdef str chain = said.chain
    cdef str cursor = said.cursor
    cdef bytes parent = said.parent
    cdef bytes encoded = ir
    cdef bytes payload = said.raw
    cdef object block = said.block
    cdef bytes hash = block.hash
    cdef object step = said.step
    cdef str text = json
    kept += (chain, cursor, parent, hash)
    payloads.append(payload)
    point_text(&told.chain, chain)
    point_text(&told.cursor, cursor)
    point(&told.parent, parent)
    point(&told.hash, hash)
    if payload is not None:
        point(&told.payload, payload)
    if text is not None:
        kept.append(text)
        point_text(&told.json, text)
    if encoded is not None:
        kept.append(encoded)
        point(&told.ir, encoded)
    told.height = block.height
    told.seconds = said.time
    told.step = EVENT_NEW if step is NEW else EVENT_UNDO if step is UNDO else EVENT_FINAL
    return event_measure(told)


cdef object assemble(event *told, size_t *sizes, Py_ssize_t count, Py_ssize_t most, list payloads):
    """(parts, bytes) of gRPC messages of so many events each."""
    cdef Py_ssize_t first, last, number
    cdef size_t items, length, apart = 0, total = 0
    cdef bytes content
    cdef uint8_t *at
    cdef uint8_t *begin
    cdef Py_ssize_t done = 0
    cdef list parts = []
    cdef object whole = None
    for first in range(0, count, most):
        last = min(first + most, count)
        items = 0
        for number in range(first, last):
            items += sizes[number] + (event_item_head(sizes[number]) if last - first > 1 else 0)
            if told[number].payload.length >= APART:
                apart += told[number].payload.length
        length = items + (event_batch_head(items) if last - first > 1 else 0)
        if length > LONGEST:
            raise OverflowError(f"a message of {length} bytes is too long for gRPC")
        total += EVENT_PREFIX_BYTES + length
    content = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(total - apart))
    begin = at = <uint8_t *>PyBytes_AS_STRING(content)
    for first in range(0, count, most):
        last = min(first + most, count)
        if last - first > 1:
            items = 0
            for number in range(first, last):
                items += sizes[number] + event_item_head(sizes[number])
            at = event_write_prefix(at, items + event_batch_head(items))
            at = event_write_batch_head(at, items)
        else:
            at = event_write_prefix(at, sizes[first])
        for number in range(first, last):
            if last - first > 1:
                at = event_write_item_head(at, sizes[number])
            at = event_write_head(&told[number], at)
            if told[number].payload.length >= APART:
                whole = whole or memoryview(content)
                parts.append(whole[done : at - begin])
                parts.append(payloads[number])
                done = at - begin
            elif told[number].payload.length:
                memcpy(at, told[number].payload.bytes, told[number].payload.length)
                at += told[number].payload.length
            at = event_write_tail(&told[number], at)
    if done == 0:
        parts.append(content)
    elif done < at - begin:
        parts.append(whole[done : at - begin])
    return parts, total


def tell(events, Py_ssize_t first, *, Py_ssize_t batch, size_t most, double since=0, json=None, ir=None):
    """Writes events of a feed from the place first on as gRPC messages of BlockMessage, each with its length before.

    batch: so many events go into one message; up to 1: each is one of its own. most: about so many bytes; the event that reaches
    it is the last. since: events of blocks before that second are left out. json, ir: of each event its block as a text, or
    as an encoded BlockIR; None: without.

    Returns (parts, size, next): what is to be sent, one behind the other, how many bytes that are, and the place of the first
    event that was not looked at. Large payloads are parts of their own, and not copied. Raises TypeError, OverflowError.
    """
    cdef Py_ssize_t end = len(events)
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t place = first
    cdef size_t size = 0
    cdef list kept = []
    cdef list payloads = []
    cdef object said
    cdef event *told
    cdef size_t *sizes
    if not 0 <= first < end:
        return [], 0, end
    told = <event *>calloc(end - first, sizeof(event))
    sizes = <size_t *>calloc(end - first, sizeof(size_t))
    try:
        if told == NULL or sizes == NULL:
            raise MemoryError
        while place < end and size < most:
            said = events[place]
            if not since or said.time >= since:
                sizes[count] = gather(
                    &told[count], said, None if json is None else json[place], None if ir is None else ir[place], kept, payloads
                )
                size += sizes[count]
                count += 1
            place += 1
        if count == 0:
            return [], 0, place
        return *assemble(told, sizes, count, max(batch, 1), payloads), place
    finally:
        free(told)
        free(sizes)


# ---- bytes to messages -------------------------------------------------------------------------------------------------------

cdef enum:
    PREFIX_BYTES = 5
    # How much a message that has begun takes at least, and how many times what has come of it at most.
    BEGUN_BYTES = 65536
    BEGUN_TIMES = 8


def split(data, size_t limit, list into):
    """Appends the whole gRPC messages at the begin of data, as bytes. Returns (place, fault): where what is left begins, and
    why it stopped there: 0, no whole message is left; -1, a compressed one; else the length of one above the limit."""
    cdef Py_buffer view
    cdef const uint8_t *at
    cdef size_t place = 0, end, length
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        end = view.len
        while end - place >= PREFIX_BYTES:
            at = <const uint8_t *>view.buf + place
            length = <size_t>at[1] << 24 | <size_t>at[2] << 16 | <size_t>at[3] << 8 | at[4]
            if at[0]:
                return place, -1
            if length > limit:
                return place, length
            if end - place - PREFIX_BYTES < length:
                break
            into.append(PyBytes_FromStringAndSize(<const char *>at + PREFIX_BYTES, length))
            place += PREFIX_BYTES + length
        return place, 0
    finally:
        PyBuffer_Release(&view)


@cython.final
@cython.no_gc
cdef class Body:
    """A message of which not all has come. What comes is copied once, into the place from which it is read later; it takes no
    more memory than 64 KiB, or eight times what has come."""

    cdef PyObject *content
    cdef size_t have
    cdef size_t room
    cdef size_t length

    def __cinit__(self, size_t length):
        """length: of the whole message, above 0."""
        if not 0 < length <= LONGEST:
            raise ValueError(f"a message of {length} bytes cannot be begun")
        self.length = length
        self.room = min(length, <size_t>BEGUN_BYTES)
        self.content = raw_bytes(NULL, self.room)

    def __dealloc__(self):
        Py_XDECREF(self.content)

    def take(self, data):
        """Copies what belongs to this message; says how many bytes that were."""
        cdef Py_buffer view
        cdef size_t size
        if self.content == NULL:
            raise ValueError("the message was taken already")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            size = min(<size_t>view.len, self.length - self.have)
            if self.have + size > self.room:
                self.room = min(self.length, (self.have + size) * BEGUN_TIMES)
                _PyBytes_Resize(&self.content, self.room)
            memcpy(start_of(self.content) + self.have, view.buf, size)
            self.have += size
            return size
        finally:
            PyBuffer_Release(&view)

    def __len__(self):
        return self.have

    @property
    def whole(self):
        """All of it has come."""
        return self.have == self.length

    def message(self):
        """The whole message, once."""
        if self.content == NULL or self.have != self.length:
            raise ValueError("the message is not whole")
        cdef object content = <object>self.content
        Py_XDECREF(self.content)
        self.content = NULL
        return content
