/* plugin.c - the exports of the plugin and the thread that does its work.
 *
 * init checks everything that the operator can have got wrong, start starts one thread, stop ends it. The thread lives until
 * stop, also after the end of the input: a plugin that asked for heartbeats owes them as long as it is loaded.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "host.h"
#include "reader.h"
#include "settings.h"
#include "watch.h"

/* How often a folder is looked at that may change without saying so: on a network file system, or behind a link. */
#define LOOK_AGAIN_MS 1000

static struct {
    /* Guards the three below: plugin_stop may be called while plugin_start runs. */
    pthread_mutex_t mutex;
    bool ready;   /* init succeeded: reader and watch are open. */
    bool running; /* There is a thread to join. */
    bool stopped;
    pthread_t thread;
    struct reader reader;
    struct watch watch;
} plugin = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- the thread -------------------------------------------------------------------------------------------------------- */

/* Says that everything was read. false: nothing more can be done. */
static bool say_end_of_input(const struct reader *reader, bool first)
{
    /* Following a node this comes after each block: then it is worth a line only for those who look closely. */
    host_say(first ? SUPERVM_LOG_INFO : SUPERVM_LOG_DEBUG,
             "everything readable in %s is read: %" PRIu64 " blocks, %" PRIu64 " bytes in this run",
             reader->settings.blocks_dir, reader->blocks, reader->bytes);
    int32_t status = host.sink->end_of_input(host.sink->host);
    if (status != SUPERVM_OK && status != SUPERVM_STOPPING)
        host_say(SUPERVM_LOG_ERROR, "the host's block sink answered %" PRId32 " to the end of input: reading ends here", status);
    return status == SUPERVM_OK;
}

/* Reads until there is a reason to end. FAILURE_NONE: stopped, or, without follow, done. */
static enum failure mirror(struct reader *reader, struct watch *watch)
{
    bool follow = reader->settings.follow, idle = false, first = true, progress, unsettled;
    for (;;) {
        if (follow)
            watch_folder(watch, reader->settings.blocks_dir);
        enum pass_end end = reader_pass(reader, &progress, &unsettled);
        if (end == PASS_STOPPED)
            return FAILURE_NONE;
        if (end != PASS_DONE)
            return FAILURE_SINK;
        if (reader->folder_failed && !follow)
            return FAILURE_FOLDER;
        if (progress)
            idle = false;
        if (unsettled) {
            if (watch_wait(watch, READER_SETTLE_MS) == WAKE_STOP)
                return FAILURE_NONE;
            continue;
        }
        if (progress && follow)
            continue; /* Idle is when a whole pass finds nothing. */
        if (!idle && !reader->folder_failed) {
            if (!say_end_of_input(reader, first))
                return FAILURE_SINK;
            idle = true;
            first = false;
        }
        if (!follow)
            return FAILURE_NONE;
        if (watch_wait(watch, LOOK_AGAIN_MS) == WAKE_STOP)
            return FAILURE_NONE;
    }
}

static void *run(void *unused)
{
    (void)unused;
    enum failure failure = mirror(&plugin.reader, &plugin.watch);
    if (failure != FAILURE_NONE)
        host.vtable->host_request_shutdown(failure);
    while (watch_wait(&plugin.watch, -1) != WAKE_STOP)
        ;
    return NULL;
}

/* ---- the exports ------------------------------------------------------------------------------------------------------- */

const char *plugin_get_manifest_json(void)
{
    return "{\"id\": \"org.supervm.bitcoin-blockfiles\", \"name\": \"Bitcoin block files\", \"version\": \"0.1.0\", "
           "\"chain\": \"bitcoin\", \"capabilities\": [\"block_stream\"]}";
}

void plugin_free_string(char *s)
{
    (void)s; /* The only string handed out is static. */
}

int plugin_init(void *host_api_vtable)
{
    const char *json;
    uint64_t length;
    struct settings settings;
    enum failure failure = host_connect(host_api_vtable);
    if (failure != FAILURE_NONE)
        return failure;
    int32_t status = host.config->get(host.config->host, &json, &length);
    if (status != SUPERVM_OK) {
        host_say(SUPERVM_LOG_ERROR, "the host does not give the configuration: it answered %" PRId32, status);
        return FAILURE_HOST;
    }
    failure = settings_read(&settings, json, length);
    if (failure != FAILURE_NONE)
        return failure;
    failure = reader_open(&plugin.reader, &settings);
    if (failure != FAILURE_NONE)
        return failure;
    if (!watch_open(&plugin.watch)) {
        host_say(SUPERVM_LOG_ERROR, "no event descriptor: %s: raise the limit of open files", strerror(errno));
        reader_close(&plugin.reader);
        return FAILURE_SYSTEM;
    }
    plugin.ready = true;
    host_say(SUPERVM_LOG_INFO, "reading %s (%s%s)", settings.blocks_dir, settings.network->name,
             settings.follow ? ", following the node" : "");
    return FAILURE_NONE;
}

int plugin_start(void)
{
    pthread_mutex_lock(&plugin.mutex);
    enum failure failure = FAILURE_NONE;
    if (!plugin.ready || plugin.running) {
        failure = FAILURE_HOST;
    } else if (!plugin.stopped) {
        /* Signals are the host's to handle, on threads of its own. */
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int error = pthread_create(&plugin.thread, NULL, run, NULL);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        plugin.running = error == 0;
        if (error != 0) {
            host_say(SUPERVM_LOG_ERROR, "no thread: %s: raise the limit of processes", strerror(error));
            failure = FAILURE_SYSTEM;
        }
    }
    pthread_mutex_unlock(&plugin.mutex);
    return failure;
}

int plugin_stop(void)
{
    pthread_mutex_lock(&plugin.mutex);
    bool close_all = plugin.ready && !plugin.stopped;
    bool join = close_all && plugin.running;
    plugin.stopped = true;
    if (join) {
        atomic_store(&plugin.reader.stopping, true);
        watch_stop(&plugin.watch);
    }
    pthread_mutex_unlock(&plugin.mutex);
    if (join)
        pthread_join(plugin.thread, NULL);
    if (close_all) {
        reader_close(&plugin.reader);
        watch_close(&plugin.watch);
    }
    return FAILURE_NONE;
}
