/* watch.h - waiting for a folder to change, or for the plugin to be stopped. */
#ifndef WATCH_H
#define WATCH_H

#include <stdbool.h>

struct watch {
    int stop_fd;    /* eventfd; readable once the plugin is being stopped, and for good. */
    int inotify_fd; /* -1 where the kernel gives none: then only time tells. */
    int descriptor; /* Of the folder; -1 while it is not watched. */
    bool told;      /* That the folder cannot be watched. */
};

enum wake { WAKE_STOP, WAKE_CHANGE, WAKE_TIME };

/* false: errno says why, and nothing is left to close. */
bool watch_open(struct watch *watch);

/* Watches the folder, where it is not watched already. Best called before the folder is read, so that nothing falls between.
 * Failing is no error: some file systems do not announce changes, so whoever waits looks again after a second anyway. */
void watch_folder(struct watch *watch, const char *path);

/* Waits until one of the three happens; beats for the host meanwhile. milliseconds -1: without end. */
enum wake watch_wait(struct watch *watch, int milliseconds);

/* Ends this wait and all later ones. Any thread. */
void watch_stop(struct watch *watch);

void watch_close(struct watch *watch);

#endif
