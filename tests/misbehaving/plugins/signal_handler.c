/* Calls from a signal handler that interrupts a call of the same thread. The sink answers BUSY; nothing waits for itself. */
#include <signal.h>

#include "good.h"

static atomic_int publish_answered, reserve_answered, beat_answered, signals;
static const struct supervm_heartbeat_1 *heartbeat;

static void handle(int number)
{
    (void)number;
    struct supervm_block_1 block = dev_block(1, 9);
    uint8_t *place;
    atomic_store(&publish_answered, sink->publish(sink->host, &block));
    atomic_store(&reserve_answered, sink->reserve(sink->host, 8, &place));
    atomic_store(&beat_answered, heartbeat->beat(heartbeat->host));
    host->host_log(SUPERVM_LOG_INFO, "from a signal handler");
    host->host_report_metric("signal", 1.0);
    atomic_fetch_add(&signals, 1);
}

/* Interrupts the other thread while it logs, over and over. */
static void *interrupt(void *thread)
{
    for (int turn = 0; turn < 2000; turn++) {
        pthread_kill(*(pthread_t *)thread, SIGUSR2);
        sched_yield();
    }
    return NULL;
}

static void ignore_sink(int number)
{
    (void)number;
    host->host_log(SUPERVM_LOG_DEBUG, "inside a log line");
    host->host_report_metric("inside", 1.0);
}

SUPERVM_EXPORT int plugin_start(void)
{
    struct sigaction before, action = {.sa_handler = handle};
    pthread_t self = pthread_self(), thread;
    uint8_t *place;
    heartbeat = host->host_get_extension(SUPERVM_HEARTBEAT_1);
    sigaction(SIGUSR2, &action, &before);
    EXPECT(sink->reserve(sink->host, 8, &place) == SUPERVM_OK);
    EXPECT(raise(SIGUSR2) == 0 && atomic_load(&signals) == 1);
    EXPECT(atomic_load(&publish_answered) == SUPERVM_BUSY && atomic_load(&reserve_answered) == SUPERVM_BUSY);
    EXPECT(atomic_load(&beat_answered) == SUPERVM_OK);
    EXPECT(sink->abandon(sink->host) == SUPERVM_OK);

    action.sa_handler = ignore_sink;
    sigaction(SIGUSR2, &action, NULL);
    EXPECT(pthread_create(&thread, NULL, interrupt, &self) == 0);
    for (int turn = 0; turn < 2000; turn++)
        host->host_log(SUPERVM_LOG_DEBUG, "interrupted");
    pthread_join(thread, NULL);
    sigaction(SIGUSR2, &before, NULL);
    EXPECT(publish_chain(10) == SUPERVM_OK);
    for (int turn = 0; turn < 1000; turn++)
        rest(); /* Until there is room again for a log line: the host takes them all the time. */
    done();
    return 0;
}
