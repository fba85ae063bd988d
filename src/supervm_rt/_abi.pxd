# What _abi.pyx uses of the C code in _native/, and what other extensions use of _abi.pyx.

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t


cdef extern from "<stdbool.h>":
    ctypedef bint c_bool "bool"


cdef extern from "record.h":
    cdef enum record_kind:
        RECORD_BLOCK
        RECORD_REORG
        RECORD_FINALIZED
        RECORD_END_OF_INPUT

    cdef struct record_header:
        uint64_t payload_length
        uint64_t height
        uint64_t final_height
        int64_t time
        uint64_t to_height
        uint16_t kind
        uint8_t hash_length
        uint8_t parent_length
        uint8_t weight_length
        uint8_t item_length
        uint16_t position_length

    const uint64_t HEIGHT_UNKNOWN "SUPERVM_HEIGHT_UNKNOWN"
    const int64_t TIME_UNKNOWN "SUPERVM_TIME_UNKNOWN"


cdef extern from "ring.h":
    const uint64_t RING_MINIMUM_CAPACITY
    const uint64_t RING_MAXIMUM_CAPACITY

    const uint64_t PLUGIN_SHUTDOWN_ASKED

    cdef struct plugin_words:
        uint64_t shutdown
        uint64_t dropped_messages
        uint32_t heartbeat_asked

    cdef struct ring_producer_page:
        uint64_t waits
        uint64_t wakeups
        plugin_words words

    cdef struct ring_host_page:
        uint32_t route

    cdef struct c_ring "ring":
        ring_producer_page *producer
        ring_host_page *host
        uint64_t capacity
        int producer_fd
        int host_fd


cdef extern from "releaser.h" nogil:
    cdef struct c_releaser "releaser":
        char name[16]
        int32_t thread_id
    c_bool releaser_finish(c_releaser *releaser, int64_t timeout_ns)


cdef extern from "reader.h":
    cdef struct reader:
        c_ring ring
        uint64_t pinned_frames
        uint64_t frames
        uint64_t bytes
        uint64_t copied_out

    cdef struct frame_core:
        const uint8_t *record
        const uint8_t *outside
        uint64_t generation
        record_header header

    int reader_look(reader *reader)
    uint64_t reader_used(const reader *reader)
    int reader_next(reader *reader, frame_core *frame)
    uint64_t reader_detach(reader *reader)
    void frame_drop(frame_core *frame)
    c_bool frame_pin(frame_core *frame)
    void frame_unpin(frame_core *frame)
    const uint8_t *frame_payload(const frame_core *frame)
    const uint8_t *frame_tails(const frame_core *frame)


cdef extern from "side_ring.h":
    const int MESSAGE_LOG_KIND "MESSAGE_LOG"
    const int MESSAGE_METRIC_KIND "MESSAGE_METRIC"
    const int MESSAGE_TRANSACTION_KIND "MESSAGE_TRANSACTION"

    cdef struct message_header:
        uint64_t data_length
        double value
        uint32_t text_length
        int32_t level
        uint32_t kind

    cdef struct side_ring:
        c_ring ring
        uint64_t messages

    int side_ring_next(side_ring *side, message_header *header, const uint8_t **text, const uint8_t **data)
    void side_ring_done(side_ring *side, const message_header *header)


cdef extern from "channel.h" nogil:
    cdef struct c_channel "channel":
        reader *reader
        side_ring side
        int event_fd

    int channel_create(c_channel *channel, uint64_t ring_bytes, uint64_t side_ring_bytes, uint64_t generation, c_releaser *releaser)
    void channel_destroy(c_channel *channel)
    void channel_close_fds(c_channel *channel)
    void channel_begin_stop(c_channel *channel)
    void channel_notify(c_channel *channel)
    c_bool channel_prepare_wait(c_channel *channel)
    void channel_finish_wait(c_channel *channel)
    int64_t channel_last_sign(const c_channel *channel)
    plugin_words *channel_words(const c_channel *channel)


cdef extern from "slot.h" nogil:
    const int SLOTS "SLOT_COUNT"
    const uint32_t SLOT_BLOCK_STREAM
    const uint32_t SLOT_SUBMIT_TX

    cdef struct supervm_host_vtable:
        pass

    cdef struct c_slot "slot":
        supervm_host_vtable vtable
        c_channel *channel
        c_releaser *releaser

    int slot_number(const c_slot *slot)
    int slot_grant(c_slot *slot, uint32_t grants, const char *configuration, uint64_t configuration_length,
                   const uint8_t *position, uint64_t position_length)
    void slot_close(c_slot *slot)
    int network_attach(c_slot *slot, int socket)
    void slot_sign_of_life(c_slot *slot)
    c_bool slot_sink_is_busy(const c_slot *slot)
    uint64_t sink_max_payload(const c_slot *slot)


cdef extern from "in_process.h" nogil:
    c_slot *slot_take(uint64_t ring_bytes, uint64_t side_ring_bytes, uint64_t generation, uint32_t heartbeat_interval_ms)
    void slot_give_back(c_slot *slot)
    int slot_used_count()
    void slot_begin_stop(c_slot *slot)


cdef extern from "loader.h" nogil:
    cdef enum loader_result:
        LOADER_OK
        LOADER_REFUSED
        LOADER_MISSING_EXPORT
        LOADER_NOT_NEW

    cdef struct library:
        uintptr_t base
        uintptr_t end
        const char *(*get_manifest_json)() noexcept nogil
        int (*init)(void *vtable) noexcept nogil
        int (*start)() noexcept nogil
        int (*stop)() noexcept nogil
        void (*free_string)(char *text) noexcept nogil

    loader_result loader_open(library *library, int fd, char *detail, size_t detail_bytes)
    c_bool loader_close(library *library)
    c_bool loader_is_mapped(const library *library)


cdef extern from "thread_name.h" nogil:
    void thread_name_borrow(char *before, const char *name)
    void thread_name_restore(const char *before)


cdef extern from "thread_stack.h" nogil:
    cdef enum thread_stack_answer:
        THREAD_STACK_CLEAN
        THREAD_STACK_REFERS
        THREAD_STACK_UNKNOWN

    thread_stack_answer thread_stack_refers(int thread, uintptr_t low, uintptr_t high)


@cython.final
cdef class Frame:
    cdef frame_core core
    cdef PyObject *source  # Owned; NULL where core.outside is no view. Not an object for Cython, which would cost every frame.
