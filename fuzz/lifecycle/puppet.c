/* A plugin that does in each call what a block of memory says, and notes there what was called. The block belongs to whoever made
 * the library: its address stands in the library's bytes. In a process of its own the behaviour itself stands there, and what is
 * noted goes into files of its storage: "notes", "published", and "hanging", which is locked while a call hangs. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <supervm/supervm.h>

enum { DOES_WELL, FAILS, IS_SLOW, WAITS_FOR_STOP, HANGS, DISAGREES };
enum { NO_WORKER, PUBLISHES, FLOODS, ASKS_FOR_SHUTDOWN, GIVES_UP, CHATTERS, STAYS, KEEPS_A_RESERVATION };
enum { NOTES = 4096, BLOCKS = 20 };

struct control {
    uint8_t constructor, manifest, init, start, stop, destructor, worker, early;
    _Atomic uint32_t released; /* What hangs may go on. */
    _Atomic uint32_t threads;
    _Atomic uint32_t noted;
    _Atomic uint64_t published; /* Blocks that the host took, over all lives. */
    char notes[NOTES];          /* Each call's letter, small when it returns. */
};

static volatile uint64_t address = 0x53564d2d50555050; /* Replaced in the file; 0: in a process of its own. */
static volatile uint64_t behaviour_here = 0x53564d2d48455245; /* Likewise: the first eight bytes of the block. */
static struct control own;
static int notes_file = -1, published_file = -1;
static const struct supervm_host_vtable *host;
static const struct supervm_block_sink_1 *sink;
static pthread_t thread;
static int has_thread;
static atomic_int stopping;

static struct control *control(void) { return address ? (struct control *)(uintptr_t)address : &own; }
static void rest(void) { nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL); }

static void note(char letter)
{
    uint32_t place = atomic_fetch_add(&control()->noted, 1);
    if (place < NOTES)
        control()->notes[place] = letter;
    if (notes_file >= 0 && write(notes_file, &letter, 1) != 1)
        abort();
}

static void open_files(void)
{
    uint64_t behaviour = behaviour_here, published = 0;
    if (address)
        return;
    memcpy(&own, &behaviour, sizeof behaviour);
    notes_file = open("notes", O_CREAT | O_WRONLY | O_APPEND, 0600);
    published_file = open("published", O_CREAT | O_RDWR, 0600);
    if (notes_file < 0 || published_file < 0 || pread(published_file, &published, sizeof published, 0) < 0)
        abort();
    own.published = published;
}

static int lock_hanging(void)
{
    int file = address ? -1 : open("hanging", O_CREAT | O_RDWR, 0600);
    if (file >= 0 && flock(file, LOCK_SH) != 0)
        abort();
    return file;
}

/* Answers the code, if it is to fail. */
static int act(char letter, uint8_t behaviour, int code)
{
    note(letter);
    if (behaviour == IS_SLOW)
        rest();
    if (behaviour == WAITS_FOR_STOP || behaviour == HANGS) {
        int file = lock_hanging();
        while (!atomic_load(&control()->released) && !(behaviour == WAITS_FOR_STOP && atomic_load(&stopping)))
            rest();
        if (file >= 0)
            close(file);
    }
    note((char)(letter | 0x20));
    return behaviour == FAILS ? code : 0;
}

static int publish(void)
{
    uint64_t height = atomic_load(&control()->published) + 1, below = height - 1;
    unsigned char hash[32] = {0}, parent[32] = {0}, weight[SUPERVM_WEIGHT_BYTES] = {1};
    memcpy(hash, &height, sizeof height);
    memcpy(parent, &below, sizeof below);
    hash[31] = parent[31] = 1;
    struct supervm_block_1 block = {.struct_size = sizeof block, .height = height, .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN, .hash = hash, .hash_length = 32, .parent = parent, .parent_length = 32, .weight = weight,
        .position = (const uint8_t *)&height, .position_length = sizeof height, .payload = hash, .payload_length = sizeof hash};
    int answer = sink->publish(sink->host, &block);
    if (answer == SUPERVM_OK) {
        atomic_store(&control()->published, height);
        if (published_file >= 0 && pwrite(published_file, &height, sizeof height, 0) != sizeof height)
            abort();
    }
    return answer;
}

static void *work(void *unused)
{
    uint8_t *place;
    (void)unused;
    atomic_fetch_add(&control()->threads, 1);
    switch (control()->worker) {
    case PUBLISHES:
        for (int count = 0; count < BLOCKS && publish() == SUPERVM_OK; count++) {}
        sink->end_of_input(sink->host);
        break;
    case FLOODS:
        while (publish() == SUPERVM_OK) {}
        break;
    case ASKS_FOR_SHUTDOWN:
        publish();
        host->host_request_shutdown(0);
        break;
    case GIVES_UP:
        publish();
        host->host_request_shutdown(42);
        break;
    case CHATTERS:
        while (!atomic_load(&stopping) && !atomic_load(&control()->released)) {
            host->host_log(SUPERVM_LOG_INFO, "chatter");
            host->host_report_metric("chatter", 1.0);
            rest();
        }
        break;
    case KEEPS_A_RESERVATION:
        sink->reserve(sink->host, 64, &place);
        break;
    }
    /* A plugin that was abandoned may never be told to stop: what is released ends too. */
    while (!atomic_load(&control()->released) && (!atomic_load(&stopping) || control()->worker == STAYS)) rest();
    atomic_fetch_sub(&control()->threads, 1);
    return NULL;
}

__attribute__((constructor)) static void construct(void)
{
    open_files();
    act('C', control()->constructor, 0);
}
__attribute__((destructor)) static void destroy(void) { act('D', control()->destructor, 0); }

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
    uint8_t behaviour = control()->manifest;
    if (act('M', behaviour, 1) != 0)
        return NULL;
    return behaviour == DISAGREES ? "{\"id\": \"another\"}"
                                  : "{\"id\": \"org.example.puppet\", \"name\": \"puppet\", \"version\": \"1.0.0\", "
                                    "\"chain\": \"dev\", \"capabilities\": [\"block_stream\"]}";
}

SUPERVM_EXPORT void plugin_free_string(char *text)
{
    (void)text;
    act('F', DOES_WELL, 0);
}

SUPERVM_EXPORT int plugin_init(void *vtable)
{
    host = vtable;
    sink = host->host_get_extension(SUPERVM_BLOCK_SINK_1);
    if (sink == NULL)
        return 2;
    for (int count = 0; count < control()->early && publish() == SUPERVM_OK; count++) {}
    return act('I', control()->init, 7);
}

SUPERVM_EXPORT int plugin_start(void)
{
    int answer = act('S', control()->start, 8);
    if (answer == 0 && !atomic_load(&stopping) && control()->worker != NO_WORKER)
        has_thread = pthread_create(&thread, NULL, work, NULL) == 0;
    return answer;
}

SUPERVM_EXPORT int plugin_stop(void)
{
    atomic_store(&stopping, 1);
    int answer = act('T', control()->stop, 9);
    if (has_thread && control()->worker == STAYS)
        pthread_detach(thread);
    else if (has_thread)
        pthread_join(thread, NULL);
    return answer;
}
