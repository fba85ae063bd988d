/* Real threads on one slot, for the thread, address and undefined-behaviour sanitizers: no Python, no library to load.
 *
 * Publishers, a thread that logs, the host's loop and a second thread of the host, which like the first one holds a lock that
 * stands for the GIL while it is inside the reader. The ring is small, so it is full all the time. Every frame's bytes are compared
 * when it is read, and again when it is dropped, be it kept, exported, copied out, or in the publisher's memory. Each round ends
 * with all that was to be published, or with a stop at any moment.
 *
 * Usage: ring_threads FRAMES SEED. Status 0: all was well. 1: it says what was not. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "in_process.h"

#define PUBLISHERS 3
#define KEPT 96
#define ROUND_FRAMES 20000
#define RING_BYTES (UINT64_C(1) << 16)
#define STUCK_SECONDS 15 /* For what takes microseconds. */
#define CLOSE_NS INT64_C(30000000000)

static pthread_mutex_t gil = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t progress;
static _Atomic uint32_t round_over; /* The host's second thread and the one that logs go. */
static _Atomic uint64_t handed_over, handed_back; /* Payloads in the publishers' memory. */
static struct slot *slot;
static bool calm; /* This round nothing wakes the host but what the publishers and the frames need. */

static uint64_t frames_read, kept_checked, slept, stops, external_read, messages_read, messages_dropped, producer_waits, copied_out;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("ring_threads: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    _exit(1);
}

#define CHECK(condition) ((condition) ? (void)0 : fail("line %d: %s", __LINE__, #condition))

/* ---- numbers ---- */

static uint64_t mix(uint64_t value)
{
    value ^= value >> 31;
    value *= UINT64_C(0x9e3779b97f4a7c15);
    value ^= value >> 29;
    value *= UINT64_C(0xbf58476d1ce4e5b9);
    return value ^ value >> 32;
}

static uint64_t draw(uint64_t *state, uint64_t below)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return mix(*state) % below;
}

/* What block number of a publisher holds; its length depends on the number alone, too. */
static uint64_t length_of(uint64_t publisher, uint64_t number)
{
    uint64_t chance = mix(publisher << 48 | number);
    if (chance % 64 == 0)
        return chance / 64 % 20000;
    return chance / 64 % (chance % 4 == 0 ? 2000 : 300);
}

static void fill(uint8_t *payload, uint64_t length, uint64_t publisher, uint64_t number)
{
    uint64_t seed = mix(publisher << 48 | number);
    for (uint64_t at = 0; at < length; at += 8) {
        uint64_t word = seed + at;
        memcpy(payload + at, &word, length - at < 8 ? length - at : 8);
    }
}

static bool holds(const uint8_t *payload, uint64_t length, uint64_t publisher, uint64_t number)
{
    uint64_t seed = mix(publisher << 48 | number);
    for (uint64_t at = 0; at < length; at += 8) {
        uint64_t word = seed + at;
        if (memcmp(payload + at, &word, length - at < 8 ? length - at : 8) != 0)
            return false;
    }
    return true;
}

/* ---- publishers ---- */

struct publisher {
    pthread_t thread;
    uint64_t number;    /* Of the publisher, from 1. */
    uint64_t count;     /* How many it is to publish. */
    uint64_t published; /* How many were taken. */
    uint64_t seed;
};

struct payload {
    uint64_t publisher, number, length;
    uint8_t bytes[];
};

static void release(void *argument)
{
    struct payload *payload = argument;
    if (!holds(payload->bytes, payload->length, payload->publisher, payload->number))
        fail("a payload was changed before it came back");
    free(payload);
    atomic_fetch_add_explicit(&handed_back, 1, memory_order_relaxed);
}

static int32_t publish_one(const struct supervm_block_sink_1 *sink, struct supervm_block_1 *block, struct publisher *self,
                           uint64_t number, uint8_t *scratch)
{
    uint64_t length = length_of(self->number, number);
    uint64_t way = draw(&self->seed, 16);
    block->payload = scratch;
    block->payload_length = length;
    if (way < 4) {
        uint8_t *place;
        int32_t status = (way & 1) ? sink->reserve(sink->host, length + 64, &place) : sink->try_reserve(sink->host, length, &place);
        if (status == SUPERVM_OK) {
            if (way == 0) {
                CHECK(sink->publish(sink->host, block) == SUPERVM_BUSY);
                fill(place, length / 2, self->number, ~number);
                CHECK(sink->abandon(sink->host) == SUPERVM_OK);
            } else {
                fill(place, length, self->number, number);
                return sink->commit(sink->host, block);
            }
        } else if (status != SUPERVM_WOULD_BLOCK) {
            return status;
        }
    } else if (way < 7) {
        struct payload *payload = malloc(sizeof *payload + length);
        CHECK(payload);
        payload->publisher = self->number;
        payload->number = number;
        payload->length = length;
        fill(payload->bytes, length, self->number, number);
        block->payload = payload->bytes;
        atomic_fetch_add_explicit(&handed_over, 1, memory_order_relaxed);
        return sink->publish_release(sink->host, block, release, payload);
    }
    fill(scratch, length, self->number, number);
    if (way < 10) {
        int32_t status = sink->try_publish(sink->host, block);
        if (status != SUPERVM_WOULD_BLOCK)
            return status;
    }
    return sink->publish(sink->host, block);
}

static void *publish(void *argument)
{
    struct publisher *self = argument;
    const struct supervm_block_sink_1 *sink = slot->vtable.host_get_extension(SUPERVM_BLOCK_SINK_1);
    const struct supervm_heartbeat_1 *heartbeat = slot->vtable.host_get_extension(SUPERVM_HEARTBEAT_1);
    uint8_t *scratch = malloc(20064);
    CHECK(sink && heartbeat && scratch);
    int32_t status = SUPERVM_OK;
    while (self->published < self->count) {
        uint64_t number = self->published;
        uint64_t hash[2] = {self->number, number};
        uint64_t position = mix(number);
        struct supervm_block_1 block = {
            .struct_size = sizeof block,
            .height = number,
            .final_height = SUPERVM_HEIGHT_UNKNOWN,
            .time = SUPERVM_TIME_UNKNOWN,
            .hash = (const uint8_t *)hash,
            .position = (const uint8_t *)&position,
            .hash_length = sizeof hash,
            .position_length = sizeof position,
        };
        status = publish_one(sink, &block, self, number, scratch);
        if (status != SUPERVM_OK)
            break;
        self->published++;
        if (number % 256 == 0)
            heartbeat->beat(heartbeat->host);
        if (number % 512 == 0 && sink->end_of_input(sink->host) == SUPERVM_STOPPING)
            break;
        if (draw(&self->seed, 2048) == 0)
            usleep((useconds_t)draw(&self->seed, 2000)); /* Lets the host fall asleep. */
    }
    CHECK(status == SUPERVM_OK || status == SUPERVM_STOPPING);
    free(scratch);
    return NULL;
}

static _Atomic uint64_t messages_sent, messages_refused;

static void *talk(void *argument)
{
    uint64_t seed = *(uint64_t *)argument;
    const struct supervm_host_vtable *host = &slot->vtable;
    for (uint64_t number = 0; !calm && !atomic_load_explicit(&round_over, memory_order_acquire); number++) {
        char text[64];
        uint8_t transaction[600];
        int32_t status = SUPERVM_OK;
        snprintf(text, sizeof text, "%" PRIu64 " %016" PRIx64, number, mix(number));
        switch (draw(&seed, 3)) {
        case 0:
            host->host_log(SUPERVM_LOG_INFO, text);
            break;
        case 1:
            status = host->host_report_metric(text, (double)number);
            break;
        default:
            fill(transaction, sizeof transaction, 0, number);
            snprintf(text, sizeof text, "%" PRIu64, number);
            status = host->host_submit_tx(text, transaction, sizeof transaction);
            if (status == SUPERVM_QUEUE_FULL || status == SUPERVM_BUSY)
                atomic_fetch_add_explicit(&messages_refused, 1, memory_order_relaxed);
        }
        CHECK(status == SUPERVM_OK || status == SUPERVM_QUEUE_FULL || status == SUPERVM_BUSY || status == SUPERVM_STOPPING);
        if (status != SUPERVM_STOPPING)
            atomic_fetch_add_explicit(&messages_sent, 1, memory_order_relaxed);
        if (draw(&seed, 16) == 0)
            usleep((useconds_t)draw(&seed, 500));
    }
    return NULL;
}

/* ---- the host ---- */

struct keeping {
    struct frame_core *frame; /* NULL: nothing is kept here. */
    uint64_t publisher, number;
};

static struct keeping kept[KEPT];
static uint64_t next_number[PUBLISHERS + 1];
static uint64_t next_message;

static void compare(const struct keeping *keeping)
{
    const struct frame_core *frame = keeping->frame;
    uint64_t hash[2], position;
    memcpy(hash, frame_tails(frame), sizeof hash);
    memcpy(&position, frame_tails(frame) + sizeof hash, sizeof position);
    if (hash[0] != keeping->publisher || hash[1] != keeping->number || position != mix(keeping->number) ||
        frame->header.height != keeping->number || frame->header.payload_length != length_of(keeping->publisher, keeping->number) ||
        !holds(frame_payload(frame), frame->header.payload_length, keeping->publisher, keeping->number))
        fail("a frame was overwritten: block %" PRIu64 " of publisher %" PRIu64, keeping->number, keeping->publisher);
}

static void unpin_all(struct frame_core *frame)
{
    while (frame->exports)
        frame_unpin(frame);
}

static void drop(struct keeping *keeping)
{
    if (!keeping->frame)
        return;
    compare(keeping);
    kept_checked++;
    unpin_all(keeping->frame);
    frame_drop(keeping->frame);
    free(keeping->frame);
    keeping->frame = NULL;
}

/* Takes one frame; the GIL is held, and is given up while an exported frame is compared. */
static bool take_frame(uint64_t *seed)
{
    struct keeping keeping = {.frame = calloc(1, sizeof *keeping.frame)};
    CHECK(keeping.frame);
    int found = reader_next(slot->channel->reader, keeping.frame);
    CHECK(found >= 0);
    if (found == 0) {
        free(keeping.frame);
        return false;
    }
    atomic_fetch_add_explicit(&progress, 1, memory_order_relaxed);
    if (keeping.frame->header.kind != RECORD_BLOCK) {
        CHECK(keeping.frame->header.kind == RECORD_END_OF_INPUT);
        frame_drop(keeping.frame);
        free(keeping.frame);
        return true;
    }
    CHECK(keeping.frame->header.hash_length == 16 && keeping.frame->header.position_length == 8);
    memcpy(&keeping.publisher, frame_tails(keeping.frame), 8);
    CHECK(keeping.publisher >= 1 && keeping.publisher <= PUBLISHERS);
    keeping.number = next_number[keeping.publisher]++; /* None lost, none twice. */
    frames_read++;
    external_read += keeping.frame->external != NULL;
    uint64_t way = draw(seed, 16);
    if (way < 3) {
        CHECK(frame_pin(keeping.frame));
        pthread_mutex_unlock(&gil);
        compare(&keeping);
        pthread_mutex_lock(&gil);
        if (way == 0)
            frame_unpin(keeping.frame);
    } else {
        compare(&keeping);
    }
    if (way < 8) {
        struct keeping *place = &kept[draw(seed, KEPT)];
        drop(place);
        *place = keeping;
    } else {
        drop(&keeping);
    }
    return true;
}

static uint64_t take_messages(void)
{
    struct message_header header;
    const uint8_t *text, *data;
    uint64_t taken = 0;
    int found;
    while ((found = side_ring_next(slot->side, &header, &text, &data)) > 0) {
        char copy[64];
        CHECK(header.text_length < sizeof copy);
        memcpy(copy, text, header.text_length);
        copy[header.text_length] = 0;
        char *end;
        uint64_t number = strtoull(copy, &end, 10);
        CHECK(number >= next_message); /* Some are dropped, none comes twice. */
        next_message = number + 1;
        if (header.kind == MESSAGE_TRANSACTION)
            CHECK(header.data_length == 600 && holds(data, 600, 0, number));
        else
            CHECK(*end == ' ' && strtoull(end, NULL, 16) == mix(number));
        if (header.kind == MESSAGE_METRIC)
            CHECK(header.value == (double)number);
        side_ring_done(slot->side, &header);
        taken++;
    }
    CHECK(found == 0);
    messages_read += taken;
    return taken;
}

/* Sleeps as a loop does: until the event, or until something else was due. */
static void sleep_on_events(uint64_t *seed)
{
    if (!channel_prepare_wait(slot->channel))
        return;
    slept++;
    bool due = !calm && draw(seed, 8) == 0;
    struct pollfd event = {.fd = slot->channel->event_fd, .events = POLLIN};
    pthread_mutex_unlock(&gil);
    int ready = poll(&event, 1, due ? (int)draw(seed, 2) : STUCK_SECONDS * 1000);
    pthread_mutex_lock(&gil);
    if (ready == 0 && !due && poll(&event, 1, 0) == 0)
        fail("nobody woke the host in %d s", STUCK_SECONDS);
    channel_finish_wait(slot->channel);
}

/* Another thread of the host: drops and exports what is kept, whatever the first one does. */
static void *meddle(void *argument)
{
    uint64_t seed = *(uint64_t *)argument;
    while (!atomic_load_explicit(&round_over, memory_order_acquire)) {
        pthread_mutex_lock(&gil);
        for (uint64_t times = draw(&seed, 16); times; times--) {
            struct keeping *keeping = &kept[draw(&seed, KEPT)];
            if (!keeping->frame)
                continue;
            switch (draw(&seed, 4)) {
            case 0:
                CHECK(frame_pin(keeping->frame));
                break;
            case 1:
                unpin_all(keeping->frame);
                break;
            default:
                drop(keeping);
            }
        }
        if (!calm && draw(&seed, 32) == 0)
            channel_notify(slot->channel);
        channel_last_sign(slot->channel);
        pthread_mutex_unlock(&gil);
        usleep((useconds_t)draw(&seed, 300));
    }
    return NULL;
}

/* Fails where nothing moves for too long. */
static void *watch(void *argument)
{
    (void)argument;
    uint64_t before = 0;
    for (int seconds = 0;; seconds++) {
        sleep(1);
        uint64_t now = atomic_load_explicit(&progress, memory_order_relaxed);
        if (now != before)
            seconds = 0;
        before = now;
        if (seconds > 2 * STUCK_SECONDS)
            fail("nothing moved for %d s", seconds);
    }
    return NULL;
}

/* As NativePlugin.close. */
static void close_slot(void)
{
    slot_begin_stop(slot);
    slot_close(slot);
    for (int index = 0; index < KEPT; index++)
        if (kept[index].frame && kept[index].frame->external)
            unpin_all(kept[index].frame);
    CHECK(!slot_sink_is_busy(slot));
    CHECK(reader_detach(slot->channel->reader) == 0);
    producer_waits += atomic_load(&slot->channel->reader->ring.producer->waits);
    copied_out += slot->channel->reader->copied_out;
    messages_dropped += atomic_load(&channel_words(slot->channel)->dropped_messages) + atomic_exchange(&messages_refused, 0);
    pthread_mutex_unlock(&gil);
    CHECK(releaser_finish(slot->releaser, CLOSE_NS));
    pthread_mutex_lock(&gil);
    slot_give_back(slot);
    CHECK(atomic_load(&handed_over) == atomic_load(&handed_back));
    for (int index = 0; index < KEPT; index++)
        drop(&kept[index]); /* They outlive their plugin. */
}

static void run_round(uint64_t *seed, uint64_t frames)
{
    bool stop = draw(seed, 3) == 0;
    uint64_t stop_after = frames_read + draw(seed, frames);
    uint64_t seeds[2] = {draw(seed, UINT64_MAX), draw(seed, UINT64_MAX)};
    struct publisher publishers[PUBLISHERS];
    pthread_t talker, meddler;

    slot = slot_take(RING_BYTES, RING_BYTES, 1, 1000);
    CHECK(slot);
    CHECK(slot_grant(slot, SLOT_BLOCK_STREAM | SLOT_SUBMIT_TX, "{}", 2, NULL, 0) == 0);
    slot->ring->host->route = 1;
    atomic_store(&round_over, 0);
    calm = draw(seed, 2) == 0;
    memset(next_number, 0, sizeof next_number);
    next_message = 0;
    for (uint64_t index = 0; index < PUBLISHERS; index++) {
        publishers[index] = (struct publisher){.number = index + 1, .count = frames / PUBLISHERS, .seed = draw(seed, UINT64_MAX)};
        CHECK(pthread_create(&publishers[index].thread, NULL, publish, &publishers[index]) == 0);
    }
    CHECK(pthread_create(&talker, NULL, talk, &seeds[0]) == 0);
    CHECK(pthread_create(&meddler, NULL, meddle, &seeds[1]) == 0);

    pthread_mutex_lock(&gil);
    for (;;) {
        uint64_t whole = 0;
        for (int publisher = 1; publisher <= PUBLISHERS; publisher++)
            whole += next_number[publisher];
        if (whole == frames / PUBLISHERS * PUBLISHERS || (stop && frames_read >= stop_after))
            break;
        CHECK(reader_look(slot->channel->reader) >= 0);
        uint64_t taken = 0;
        for (uint64_t most = draw(seed, 100); taken < most && take_frame(seed); taken++)
            ;
        if (draw(seed, 16) == 0)
            taken += take_messages();
        if (draw(seed, 4096) == 0) {
            pthread_mutex_unlock(&gil);
            usleep((useconds_t)draw(seed, 3000)); /* The ring is full by then. */
            pthread_mutex_lock(&gil);
        }
        if (taken == 0) {
            take_messages();
            sleep_on_events(seed);
        }
    }
    if (stop) {
        stops++;
        slot_begin_stop(slot);
    }
    pthread_mutex_unlock(&gil);
    if (!stop) /* What each still has to say, an end of input, fits or waits: read on until all have ended. */
        for (int index = 0; index < PUBLISHERS; index++)
            while (pthread_tryjoin_np(publishers[index].thread, NULL) != 0) {
                pthread_mutex_lock(&gil);
                CHECK(reader_look(slot->channel->reader) >= 0);
                while (take_frame(seed))
                    ;
                pthread_mutex_unlock(&gil);
                sched_yield();
            }
    else
        for (int index = 0; index < PUBLISHERS; index++)
            pthread_join(publishers[index].thread, NULL);
    atomic_store_explicit(&round_over, 1, memory_order_release);
    pthread_join(talker, NULL);
    pthread_join(meddler, NULL);

    pthread_mutex_lock(&gil);
    while (CHECK(reader_look(slot->channel->reader) >= 0), take_frame(seed))
        ;
    take_messages();
    for (int index = 0; index < PUBLISHERS; index++)
        if (publishers[index].published != next_number[index + 1])
            fail("publisher %d was told that %" PRIu64 " blocks were taken; %" PRIu64 " came", index + 1,
                 publishers[index].published, next_number[index + 1]);
    close_slot();
    pthread_mutex_unlock(&gil);
}

int main(int count, char **arguments)
{
    if (count != 3)
        fail("usage: ring_threads FRAMES SEED");
    uint64_t frames = strtoull(arguments[1], NULL, 10);
    uint64_t seed = strtoull(arguments[2], NULL, 10);
    pthread_t watcher;
    CHECK(pthread_create(&watcher, NULL, watch, NULL) == 0);
    pthread_detach(watcher);
    while (frames_read < frames)
        run_round(&seed, ROUND_FRAMES);
    uint64_t sent = atomic_load(&messages_sent);
    if (sent != messages_read + messages_dropped)
        fail("%" PRIu64 " messages were sent; %" PRIu64 " came and %" PRIu64 " were dropped", sent, messages_read, messages_dropped);
    printf("{\"frames\": %" PRIu64 ", \"external\": %" PRIu64 ", \"compared_again\": %" PRIu64 ", \"copied_out\": %" PRIu64
           ", \"host_slept\": %" PRIu64 ", \"publisher_slept\": %" PRIu64 ", \"messages\": %" PRIu64 ", \"stops\": %" PRIu64 "}\n",
           frames_read, external_read, kept_checked, copied_out, slept, producer_waits, messages_read, stops);
    return 0;
}
