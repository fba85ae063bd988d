# cython: embedsignature=True
"""Messages of remote plugins to frames: the Python side of ``_native/message.c``, which reads BlockMessage as it lies in the bytes.

All state here is guarded by the GIL; the module declares itself incompatible with free threading.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from supervm_rt._abi cimport Frame, c_bool, frame_core
from supervm_rt.errors import MessageRefused

cdef extern from "message.h":
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

cdef extern from "frame.h":
    c_bool frame_from_message(frame_core *frame, const message *message, size_t kept, uint64_t generation, c_bool *views)

ENCODING = {
    MESSAGE_ENDS_EARLY: "it ends inside a field",
    MESSAGE_LONG_VARINT: "a number has too many bytes",
    MESSAGE_BAD_TAG: "no field begins like this",
    MESSAGE_BAD_GROUP: "a group ends that did not begin",
    MESSAGE_TOO_DEEP: f"more than {MESSAGE_MAX_DEPTH} messages inside one another",
    MESSAGE_NOT_UTF8: "a text is not UTF-8",
}
cdef bytes NOTHING = b""
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


cdef bytes body_of(const message *said):
    cdef const uint8_t *place = NULL
    cdef span piece
    cdef size_t length = 0
    cdef bytes content
    cdef char *at
    while message_piece(said, &place, &piece):
        length += piece.length
    content = PyBytes_FromStringAndSize(NULL, length)
    at = PyBytes_AS_STRING(content)
    place = NULL
    while message_piece(said, &place, &piece):
        memcpy(at, piece.bytes, piece.length)
        at += piece.length
    return content


def hear(data, *, generation, bytes chain=None):
    """Reads one BlockMessage that a plugin sent.

    chain: what the plugin may name as its chain; None: anything. Returns (frames, None), or ([], (number, content)): the number
    of the body's field in BlockMessage, and the encoded submessage, which is sound as an encoding.

    A payload that is large beside the whole message is a view of data, which then lives as long as the frame; smaller ones are
    copied. Raises MessageRefused, and TypeError where data is no contiguous buffer that nobody can write to.
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
    fault = message_read(whole, named, &said, &at)
    if fault != MESSAGE_SOUND:
        raise refusal(fault, &said, at, 0, False)
    if said.body < MESSAGE_BATCH:
        return [frame_of(&said, whole.length, life, source)], None
    if said.body == MESSAGE_BATCH:
        return frames_of(&said, named, whole.length, life, source), None
    return [], (said.body, body_of(&said))
