/* Hosts one plugin in a process of its own.
 *
 * In this order: everything that is not needed is closed; the rings are mapped and their memfds closed; limits, no executable
 * memory to be made, Landlock; the seccomp program for loading; dlopen, which runs the library's constructors; the program for
 * running, for every thread that those may have left; only then is the host told and its calls are made.
 *
 * Two threads, both made before the plugin is there: this one serves the host and calls plugin_stop; the other calls plugin_init
 * and plugin_start, so that stop can be called while start runs, also where the plugin itself may have no threads.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine.h"
#include "control.h"
#include "slot.h"

#define MAX_MANIFEST_BYTES (1u << 20)
#define RING_DESCRIPTORS 5
#define STATUS_NO_HOST 0
#define STATUS_FAILED 1
#define STATUS_USAGE 2

static int control; /* The socket. */
static struct slot *const slot = &slot_table[0];
static struct ring ring;
static struct side_ring side;

static struct {
    const char *(*get_manifest_json)(void);
    int (*init)(void *vtable);
    int (*start)(void);
    int (*stop)(void);
    void (*free_string)(char *text);
} plugin;

/* The plugin's destructors and atexit functions are not run: nothing is gained by them in a process that ends. */
static void end(int status)
{
    fflush(stdout);
    _exit(status);
}

static void fail(enum control_fault fault, const char *text)
{
    control_send(control, CONTROL_FAILED, fault, text, strlen(text));
    end(STATUS_FAILED);
}

static void fail_confinement(const char *layer)
{
    if (layer)
        fail(FAULT_CONFINEMENT, layer);
}

/* ---- the thread that calls init and start ------------------------------------------------------------------------------ */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t change;
    uint32_t asked; /* CONTROL_INIT, CONTROL_START, or 0. */
    bool ready;
} caller = {.mutex = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

static void *call(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&caller.mutex);
    caller.ready = true;
    pthread_cond_signal(&caller.change);
    pthread_mutex_unlock(&caller.mutex);
    for (;;) {
        pthread_mutex_lock(&caller.mutex);
        while (!caller.asked)
            pthread_cond_wait(&caller.change, &caller.mutex);
        uint32_t asked = caller.asked;
        caller.asked = 0;
        pthread_mutex_unlock(&caller.mutex);
        if (asked == CONTROL_INIT) {
            control_send(control, CONTROL_INITIALISED, plugin.init(&slot->vtable), NULL, 0);
        } else {
            slot_sign_of_life(slot);
            control_send(control, CONTROL_STARTED, plugin.start(), NULL, 0);
        }
    }
    return NULL;
}

/* Returns when the thread runs: what a C library does at its start, a seccomp program may forbid. */
static void start_caller(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, call, NULL) != 0)
        fail(FAULT_CONFINEMENT, "a second thread");
    pthread_mutex_lock(&caller.mutex);
    while (!caller.ready)
        pthread_cond_wait(&caller.change, &caller.mutex);
    pthread_mutex_unlock(&caller.mutex);
}

static void ask_for(uint32_t kind)
{
    pthread_mutex_lock(&caller.mutex);
    caller.asked = kind;
    pthread_cond_signal(&caller.change);
    pthread_mutex_unlock(&caller.mutex);
}

/* ---- before the plugin ------------------------------------------------------------------------------------------------- */

static void close_all_but_control(void)
{
    if (control > 3)
        syscall(SYS_close_range, 3u, (unsigned)control - 1u, 0u);
    syscall(SYS_close_range, (unsigned)control + 1u, ~0u, 0u);
}

/* Maps the rings and closes their memfds. */
static void attach(const struct setup *setup, const struct message *message)
{
    const int *descriptors = message->descriptors; /* The event; producer's and host's of the ring, then of the side ring. */
    int error = ring_attach(&ring, setup->ring_bytes, descriptors[1], descriptors[2]);
    struct doorbell bell = ring_bell(&ring, descriptors[0]);
    if (!error)
        error = side_ring_attach(&side, setup->side_ring_bytes, descriptors[3], descriptors[4], &bell);
    if (error)
        fail(FAULT_CONFINEMENT, "mapping the rings");
    for (int index = 1; index < RING_DESCRIPTORS; index++)
        close(descriptors[index]);
    slot_prepare(slot, &ring, &side, descriptors[0], setup->heartbeat_ms);
    slot->used = true;
    if (setup->flags & SETUP_NETWORK && network_attach(slot, descriptors[RING_DESCRIPTORS]) != 0)
        fail(FAULT_CONFINEMENT, "the socket for the network");
}

static void load(const char *path)
{
    /* What a C library would look for at the end of a thread, when no file can be opened any more. */
    dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *text = dlerror();
        fail(FAULT_REFUSED, text ? text : "no reason given");
    }
    struct {
        const char *name;
        void *place;
    } exports[] = {
        {"plugin_get_manifest_json", &plugin.get_manifest_json},
        {"plugin_init", &plugin.init},
        {"plugin_start", &plugin.start},
        {"plugin_stop", &plugin.stop},
        {"plugin_free_string", &plugin.free_string},
    };
    struct link_map *map;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0)
        fail(FAULT_REFUSED, "the dynamic linker does not know where it is");
    for (size_t index = 0; index < sizeof exports / sizeof *exports; index++) {
        Dl_info info;
        void *found = dlsym(library, exports[index].name);
        /* dlsym also looks into what the library depends on. */
        if (!found || dladdr(found, &info) == 0 || (uintptr_t)info.dli_fbase != map->l_addr)
            fail(FAULT_MISSING_EXPORT, exports[index].name);
        memcpy(exports[index].place, &found, sizeof found);
    }
}

static void tell_manifest(void)
{
    const char *text = plugin.get_manifest_json();
    if (!text)
        fail(FAULT_MANIFEST_NULL, "");
    size_t length = strnlen(text, MAX_MANIFEST_BYTES + 1);
    if (length > MAX_MANIFEST_BYTES)
        fail(FAULT_MANIFEST_LENGTH, "");
    char *copy = malloc(length + 1);
    if (!copy)
        fail(FAULT_MANIFEST_LENGTH, "");
    memcpy(copy, text, length);
    plugin.free_string((char *)text);
    control_send(control, CONTROL_LOADED, 0, copy, length);
    free(copy);
}

static void set_up(void)
{
    struct message message;
    if (!control_receive(control, &message))
        end(STATUS_NO_HOST);
    const struct setup *setup = (const struct setup *)message.bytes;
    bool by_descriptor = message.header.length >= sizeof *setup && setup->flags & SETUP_PLUGIN_BY_DESCRIPTOR;
    if (message.header.kind != CONTROL_SETUP || message.header.length < sizeof *setup ||
        (uint64_t)setup->loading_bytes + setup->running_bytes + setup->paths_bytes != message.header.length - sizeof *setup ||
        message.descriptor_count != RING_DESCRIPTORS + !!(setup->flags & SETUP_NETWORK) + by_descriptor)
        fail(FAULT_CONFINEMENT, "a setup of this form");
    const uint8_t *loading = message.bytes + sizeof *setup;
    const uint8_t *running = loading + setup->loading_bytes;
    const uint8_t *paths = running + setup->running_bytes;

    attach(setup, &message);
    fail_confinement(confine_keep(running, setup->running_bytes)); /* Before no file may be written any more. */
    fail_confinement(confine_process(setup));
    for (const uint8_t *path = paths; path < paths + setup->paths_bytes; path += strlen((const char *)path) + 1)
        if (*path == 'w' && chdir((const char *)path + 1) != 0)
            fail(FAULT_CONFINEMENT, "changing to the storage");
    int landlock = confine_landlock_version();
    fail_confinement(confine_files(setup, paths));
    start_caller();
    char path[64] = PLUGIN_PATH;
    if (by_descriptor)
        snprintf(path, sizeof path, "/proc/self/fd/%d", message.descriptors[message.descriptor_count - 1]);
    fail_confinement(confine_calls(loading, setup->loading_bytes));
    fail_confinement(confine_guard());
    control_send(control, CONTROL_ENTERED, landlock, NULL, 0);
    load(path);
    fail_confinement(confine_finally());
    if (by_descriptor)
        close(message.descriptors[message.descriptor_count - 1]);
    free(message.bytes);
}

/* ---- serving the host -------------------------------------------------------------------------------------------------- */

static void take_grant(const struct message *message)
{
    const struct grant *grant = (const struct grant *)message->bytes;
    uint64_t length = message->header.length;
    if (length < sizeof *grant || grant->configuration_length > length - sizeof *grant ||
        grant->position_length != length - sizeof *grant - grant->configuration_length)
        end(STATUS_FAILED);
    const uint8_t *configuration = message->bytes + sizeof *grant;
    const uint8_t *position = grant->has_position ? configuration + grant->configuration_length : NULL;
    if (slot_grant(slot, grant->grants, (const char *)configuration, grant->configuration_length, position,
                   grant->position_length) != 0)
        end(STATUS_FAILED);
}

static void serve(void)
{
    struct message message;
    while (control_receive(control, &message)) {
        switch (message.header.kind) {
        case CONTROL_GRANT:
            take_grant(&message);
            break;
        case CONTROL_INIT:
        case CONTROL_START:
            ask_for(message.header.kind);
            break;
        case CONTROL_STOP: {
            slot_interrupt(slot);
            int answer = plugin.stop();
            slot_close(slot);
            fflush(stdout);
            control_send(control, CONTROL_STOPPED, answer, NULL, 0);
            break;
        }
        default: /* CONTROL_UNLOAD */
            end(0);
        }
        free(message.bytes);
    }
    end(STATUS_NO_HOST);
}

int main(int argc, char **argv)
{
    control = argc == 2 ? atoi(argv[1]) : 0;
    if (control < 3) {
        fprintf(stderr, "supervm-runner: started by supervm_rt only\n");
        return STATUS_USAGE;
    }
    close_all_but_control();
    clearenv(); /* bubblewrap tells the working directory. */
    signal(SIGPIPE, SIG_IGN); /* As in the host's process. */
    setvbuf(stdout, NULL, _IOLBF, 0);
    set_up();
    tell_manifest();
    serve();
}
