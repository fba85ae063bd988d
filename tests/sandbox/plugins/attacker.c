/* A plugin that tries what its configuration names, {"act": ATTACK, "secret": ..., "port": ..., "process": ...}, when it is started,
 * or with -DCONSTRUCTOR=ATTACK while it is loaded, and logs "ATTACK answered ERRNO". Other acts are against the host itself. */
#include "attacks.h"

#include <stdatomic.h>
#include <supervm/supervm.h>

#define PAGE 4096
SUPERVM_EXPORT const char *plugin_get_manifest_json(void);
#ifndef SECRET
#define SECRET "/nowhere"
#define PORT 1
#define PROCESS 1
#endif
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

static const struct supervm_host_vtable *host;
static const struct supervm_block_sink_1 *sink;
static char act[64];
static char secret[512];
static char skipped[2048];
static uint8_t escapes[600];
static struct aim aim = {.secret = secret};
static atomic_int stopping;

static void tell(const char *name, int answer)
{
    char line[128];
    snprintf(line, sizeof line, "%s answered %d", name, answer);
    host->host_log(SUPERVM_LOG_INFO, line);
}

#ifdef CONSTRUCTOR
/* Not static: another name can be put there in the library itself. */
char constructor[64] = TEXT(CONSTRUCTOR);
static int answer_while_loading = -2;
__attribute__((constructor)) static void escape(void)
{
    struct aim known = {.secret = SECRET, .port = PORT, .process = PROCESS};
    answer_while_loading = attack(constructor, &known);
#ifdef STAY
    nanosleep(&(struct timespec){.tv_sec = STAY}, NULL);
#endif
}
#endif

#ifdef LEFT_THREAD
/* Started by a constructor, when files may still be opened. */
static atomic_int go_on;
static atomic_int left_thread_answer = -2;
static void *left_behind(void *unused)
{
    while (!atomic_load(&go_on)) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    left_thread_answer = read_library(NULL);
    return unused;
}
static pthread_t left_thread;
static int opened_while_loading, leave_thread_answer;
__attribute__((constructor)) static void leave_thread(void)
{
    opened_while_loading = read_library(NULL);
    leave_thread_answer = pthread_create(&left_thread, NULL, left_behind, NULL);
}
#endif

#ifdef FORGE_LOADED
/* Says, in the runner's place, that the library is loaded and all programs are up, and keeps them from being put up. */
__attribute__((constructor)) static void forge_loaded(void)
{
    const char *text = plugin_get_manifest_json();
    uint32_t header[4] = {65, (uint32_t)strlen(text), 0, 0};
    for (int fd = 3; fd < 1024; fd++) {
        struct stat file;
        if (fstat(fd, &file) == 0 && S_ISSOCK(file.st_mode) && write(fd, header, sizeof header) > 0) write(fd, text, strlen(text));
    }
    for (;;) nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
}
#endif

static void take(const char *json, const char *key, char *place, size_t size)
{
    char pattern[32];
    snprintf(pattern, sizeof pattern, "\"%s\": \"", key);
    const char *found = strstr(json, pattern);
    if (!found) return;
    found += strlen(pattern);
    size_t length = strcspn(found, "\"");
    snprintf(place, size, "%.*s", (int)length, found);
}

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
    return "{\"id\": \"org.example.attacker\", \"name\": \"attacker\", \"version\": \"1.0.0\", \"chain\": \"dev\", \"capabilities\": [\"block_stream\"]}";
}
SUPERVM_EXPORT void plugin_free_string(char *text) { (void)text; }

/* The words of the producer, of the host and the data, from the address that the first reservation gives. */
struct ring_parts { uint8_t *producer, *data, *host; };
static struct ring_parts find_ring(void)
{
    uint8_t *payload;
    sink->reserve(sink->host, 4, &payload);
    sink->abandon(sink->host);
    uint8_t *data = payload - 64;
    uint64_t capacity = sink->max_payload + 512; /* RECORD_OVERHEAD */
    return (struct ring_parts){data - PAGE, data, data + 2 * capacity};
}

static void against_host(void)
{
    if (strcmp(act, "write_host_page") == 0) {
        struct ring_parts ring = find_ring();
        tell("protect_host_page", said(mprotect(ring.host, PAGE, PROT_READ | PROT_WRITE)));
        volatile uint64_t *tail = (uint64_t *)ring.host;
        *tail = *tail;
        tell(act, 0);
    } else if (strcmp(act, "punch_ring") == 0) { /* MADV_REMOVE, also with high bits that the kernel does not look at. */
        struct ring_parts ring = find_ring();
        tell("remove_pages", said(syscall(SYS_madvise, ring.data, PAGE, 9L)));
        tell("remove_pages_by_high_bits", said(syscall(SYS_madvise, ring.data, PAGE, 9L | 1L << 32)));
    } else if (strcmp(act, "false_head") == 0) {
        *(volatile uint64_t *)find_ring().producer = 12345;
    } else if (strcmp(act, "far_head") == 0) {
        *(volatile uint64_t *)find_ring().producer = UINT64_C(1) << 40;
    } else if (strcmp(act, "long_record") == 0) {
        struct ring_parts ring = find_ring();
        uint64_t lengths[2] = {64, UINT64_C(1) << 62};
        memcpy(ring.data, lengths, sizeof lengths);
        *(volatile uint64_t *)ring.producer = 64;
    } else if (strcmp(act, "pointer_record") == 0) { /* An address in the host, to be released there. */
        struct ring_parts ring = find_ring();
        memset(ring.data, 0, 128);
        ((uint64_t *)ring.data)[0] = 128;
        ((uint16_t *)ring.data)[24] = 1;
        ((uint16_t *)ring.data)[25] = 1;
        *(volatile uint64_t *)ring.producer = 128;
    } else if (strcmp(act, "flood_logs") == 0) {
        while (!stopping) host->host_log(SUPERVM_LOG_INFO, "flood");
    } else if (strcmp(act, "flood_metrics") == 0) {
        for (int i = 0; i < 1000000 && !stopping; i++) host->host_report_metric("m", i);
    } else if (strcmp(act, "flood_stdout") == 0) {
        while (!stopping) write(1, "flood flood flood flood flood flood\n", 36);
    } else if (strcmp(act, "flood_line_ends") == 0) {
        static char ends[1 << 16];
        memset(ends, '\n', sizeof ends);
        while (!stopping) write(1, ends, sizeof ends);
    } else if (strcmp(act, "burst_of_logs") == 0) {
        for (int i = 0; i < 100000; i++) host->host_log(SUPERVM_LOG_INFO, "burst");
    } else if (strcmp(act, "burst_of_metrics") == 0) {
        for (int i = 0; i < 1000000; i++) host->host_report_metric("m", i);
    } else if (strcmp(act, "burst_of_lines") == 0) {
        static char lines[36 * 1000 + 1];
        for (int i = 0; i < 1000; i++) strcpy(lines + 36 * i, "burst burst burst burst burst burst\n");
        for (int i = 0; i < 30; i++)
            for (ssize_t done = 0, written; done < 36000; done += written)
                if ((written = write(1, lines + done, 36000 - done)) <= 0) return;
    } else if (strcmp(act, "flood_wakes") == 0) {
        while (!stopping) wake_host(&aim);
    } else if (strcmp(act, "flood_notices") == 0) {
        struct ring_parts ring = find_ring();
        /* Head that goes to and fro, and every word beside it: as if there always were something. */
        while (!stopping) memset(ring.producer + 64, 0xff, 512);
    } else if (strcmp(act, "flood_ring") == 0) { /* Sound records, past the sink, which would refuse them once it is stopped. */
        struct ring_parts ring = find_ring();
        uint64_t capacity = sink->max_payload + 512;
        uint64_t head = *(volatile uint64_t *)ring.producer;
        for (;;) {
            while (head + 64 - *(volatile uint64_t *)ring.host > capacity) sched_yield();
            uint64_t *record = memset(ring.data + head % capacity, 0, 64);
            record[0] = 64;
            ((uint16_t *)record)[24] = 4; /* End of input. */
            head += 64;
            __atomic_store_n((uint64_t *)ring.producer, head, __ATOMIC_SEQ_CST);
        }
    } else if (strcmp(act, "flood_and_spoil") == 0) { /* Sound blocks; once the host has read them all, nothing of them is left. */
        static uint8_t payload[20000];
        struct ring_parts ring = find_ring();
        for (int number = 0; number < 300; number++) {
            uint64_t hash = number + 1;
            memset(payload, number, sizeof payload);
            struct supervm_block_1 block = {.struct_size = sizeof block, .height = number, .final_height = SUPERVM_HEIGHT_UNKNOWN};
            block.time = SUPERVM_TIME_UNKNOWN;
            block.hash = (const uint8_t *)&hash;
            block.hash_length = sizeof hash;
            block.payload = payload;
            block.payload_length = 1 + number * 7919 % sizeof payload;
            if (sink->publish(sink->host, &block) != SUPERVM_OK) return;
        }
        while (*(volatile uint64_t *)ring.host != *(volatile uint64_t *)ring.producer && !stopping) sched_yield();
        memset(ring.data, 0xee, sink->max_payload + 512);
        tell("spoil", 0);
    } else if (strcmp(act, "sweep") == 0) { /* One letter for each number; what ends the process by itself is left out. */
        char line[128];
        for (long number = 0; number < 600; number++) {
            int ends = number == SYS_exit || number == SYS_exit_group || number == SYS_rt_sigreturn || escapes[number];
            int error = ends || syscall(number, -1L, -1L, -1L, -1L, -1L, -1L) >= 0 ? 0 : errno;
            line[number % 100] = ends ? 'x' : error == EPERM ? 'P' : error == ENOSYS ? 'N' : '.';
            line[100] = 0;
            if (number % 100 == 99) host->host_log(SUPERVM_LOG_INFO, line);
        }
    } else if (strncmp(act, "number_", 7) == 0) {
        tell(act, said(syscall(atol(act + 7), -1L, -1L, -1L, -1L, -1L, -1L)));
    } else if (strcmp(act, "submit") == 0) { /* More than there is room for, with others' words among them. */
        static uint8_t transaction[100000];
        int taken = 0, refused = 0;
        for (int i = 0; i < 100; i++) {
            memset(transaction, i, sizeof transaction);
            int answer = host->host_submit_tx("bitcoin", transaction, sizeof transaction - i);
            taken += answer == SUPERVM_OK;
            refused += answer == SUPERVM_QUEUE_FULL;
            host->host_report_metric("answer", answer);
        }
        tell("taken", taken);
        tell("refused", refused);
    } else if (strcmp(act, "outlive") == 0) {
        tell("clear_death_signal", clear_death_signal(&aim));
        tell("leave_session", leave_session(&aim));
        tell(act, 0);
    } else if (strcmp(act, "close_all") == 0) {
        for (int fd = 0; fd < 1024; fd++) close(fd);
        for (;;) nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    } else if (strcmp(act, "print") == 0) {
        printf("hello from stdout\n");
        fprintf(stderr, "hello from \033[31mstderr\n");
        fflush(stdout);
    }
}

static pthread_t worker;
static int has_worker;
static void *work(void *unused)
{
    int answer = attack(act, &aim);
    if (answer >= 0) tell(act, answer);
    else against_host();
    return unused;
}

SUPERVM_EXPORT int plugin_init(void *vtable)
{
    host = vtable;
    const struct supervm_config_1 *config = host->host_get_extension(SUPERVM_CONFIG_1);
    const char *json;
    uint64_t length;
    char number[32] = "";
    config->get(config->host, &json, &length);
    take(json, "act", act, sizeof act);
    take(json, "secret", secret, sizeof secret);
    take(json, "port", number, sizeof number);
    aim.port = atoi(number);
    take(json, "process", number, sizeof number);
    aim.process = atoi(number);
    take(json, "skipped", skipped, sizeof skipped);
    for (char *word = strtok(skipped, " "); word; word = strtok(NULL, " ")) escapes[atoi(word) % 600] = 1;
    sink = host->host_get_extension(SUPERVM_BLOCK_SINK_1);
#ifdef CONSTRUCTOR
    tell(constructor, answer_while_loading);
#endif
#ifdef LEFT_THREAD
    tell("opened_while_loading", opened_while_loading);
    tell("leave_thread", leave_thread_answer);
    if (leave_thread_answer == 0) {
        atomic_store(&go_on, 1);
        pthread_join(left_thread, NULL);
        tell("left_thread", left_thread_answer);
    }
#endif
    if (strcmp(act, "spin_in_init") == 0) for (;;) {}
    return 0;
}

SUPERVM_EXPORT int plugin_start(void)
{
    if (strcmp(act, "slow_start") == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
        tell(act, 0);
        return 0;
    }
    if (strcmp(act, "says_and_exits") == 0) {
        tell(act, 0);
        _exit(3);
    }
    if (strncmp(act, "flood", 5) == 0) {
        int made = pthread_create(&worker, NULL, work, NULL) == 0;
        has_worker = made && strcmp(act, "flood_ring") != 0; /* Which goes on for ever. */
        if (made) return 0;
    } /* Where there are no threads, here and now. */
    work(NULL);
    return 0;
}

SUPERVM_EXPORT int plugin_stop(void)
{
    stopping = 1;
    if (strcmp(act, "slow_start") == 0) tell("slow_stop", 0);
    if (strcmp(act, "spin_in_stop") == 0) for (;;) {}
    if (strcmp(act, "abort_in_stop") == 0) abort();
    if (has_worker) pthread_join(worker, NULL);
    return 0;
}
