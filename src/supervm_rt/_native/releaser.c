#define _GNU_SOURCE
#include "releaser.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "wait.h"

void releaser_init(struct releaser *releaser)
{
    memset(releaser, 0, sizeof *releaser);
    pthread_mutex_init(&releaser->mutex, NULL);
    pthread_cond_init(&releaser->work, NULL);
}

static void *run(void *argument)
{
    struct releaser *releaser = argument;
    prctl(PR_SET_NAME, "svm-releaser");
    atomic_store(&releaser->thread_id, (int32_t)gettid());
    for (;;) {
        pthread_mutex_lock(&releaser->mutex);
        while (!releaser->first && !releaser->ending)
            pthread_cond_wait(&releaser->work, &releaser->mutex);
        struct external *batch = releaser->first;
        releaser->first = releaser->last = NULL;
        pthread_mutex_unlock(&releaser->mutex);
        if (!batch)
            break;
        prctl(PR_SET_NAME, releaser->name); /* Once for all of them: each is a system call. */
        while (batch) {
            struct external *next = batch->next;
            batch->release(batch->argument);
            free(batch);
            batch = next;
        }
        prctl(PR_SET_NAME, "svm-releaser");
    }
    atomic_store(&releaser->ended, 1);
    futex_wake_all(&releaser->ended);
    return NULL;
}

int releaser_start(struct releaser *releaser)
{
    if (releaser->started)
        return 0;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&releaser->thread, NULL, run, releaser);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        releaser->started = true;
    return error;
}

void releaser_push(struct releaser *releaser, struct external *external)
{
    external->next = NULL;
    pthread_mutex_lock(&releaser->mutex);
    if (releaser->last) {
        releaser->last->next = external;
    } else {
        releaser->first = external;
        pthread_cond_signal(&releaser->work); /* The thread sleeps only where the list is empty. */
    }
    releaser->last = external;
    pthread_mutex_unlock(&releaser->mutex);
}

bool releaser_finish(struct releaser *releaser, int64_t timeout_ns)
{
    if (!releaser->started)
        return true;
    pthread_mutex_lock(&releaser->mutex);
    releaser->ending = true;
    pthread_cond_signal(&releaser->work);
    pthread_mutex_unlock(&releaser->mutex);

    int64_t deadline = clock_now() + timeout_ns;
    while (!atomic_load(&releaser->ended)) {
        int64_t left = deadline - clock_now();
        if (left <= 0)
            return false;
        futex_wait(&releaser->ended, 0, left);
    }
    pthread_join(releaser->thread, NULL);
    releaser->started = false;
    pthread_mutex_destroy(&releaser->mutex);
    pthread_cond_destroy(&releaser->work);
    return true;
}
