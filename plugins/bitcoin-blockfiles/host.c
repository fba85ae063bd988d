#include "host.h"

#include <stdarg.h>
#include <stdio.h>

struct host host;

enum failure host_connect(void *vtable)
{
    host = (struct host){.vtable = vtable};
    if (vtable == NULL)
        return FAILURE_HOST;
    /* The members behind the four callbacks exist only in a host that states a struct_size reaching them. */
    if (host.vtable->struct_size < sizeof(struct supervm_host_vtable) || host.vtable->abi_major != SUPERVM_ABI_MAJOR) {
        host_say(SUPERVM_LOG_ERROR,
                 "this host's plugin ABI is not version %d: use a host that offers it, or a build of this plugin "
                 "made for that host", SUPERVM_ABI_MAJOR);
        return FAILURE_HOST;
    }
    host.sink = host.vtable->host_get_extension(SUPERVM_BLOCK_SINK_1);
    if (host.sink == NULL || host.sink->struct_size < sizeof(struct supervm_block_sink_1)) {
        host_say(SUPERVM_LOG_ERROR,
                 "the host does not give " SUPERVM_BLOCK_SINK_1 ": it is too old, or its policy does not grant the "
                 "capability block_stream");
        return FAILURE_HOST;
    }
    host.config = host.vtable->host_get_extension(SUPERVM_CONFIG_1);
    if (host.config == NULL || host.config->struct_size < sizeof(struct supervm_config_1)) {
        host_say(SUPERVM_LOG_ERROR,
                 "the host does not give " SUPERVM_CONFIG_1 ": this plugin cannot learn which folder to read; use a "
                 "newer host");
        return FAILURE_HOST;
    }
    host.resume = host.vtable->host_get_extension(SUPERVM_RESUME_1);
    if (host.resume != NULL && host.resume->struct_size < sizeof(struct supervm_resume_1))
        host.resume = NULL;
    host.heartbeat = host.vtable->host_get_extension(SUPERVM_HEARTBEAT_1);
    if (host.heartbeat != NULL && host.heartbeat->struct_size < sizeof(struct supervm_heartbeat_1))
        host.heartbeat = NULL;
    return FAILURE_NONE;
}

void host_say(int level, const char *format, ...)
{
    char line[SUPERVM_MAX_LOG_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    host.vtable->host_log(level, line);
}

void host_beat(void)
{
    if (host.heartbeat != NULL)
        host.heartbeat->beat(host.heartbeat->host);
}

int host_longest_wait(int limit)
{
    if (host.heartbeat == NULL || host.heartbeat->interval_ms == 0)
        return limit;
    /* A third, so that a beat that the scheduler delays still comes in time. */
    uint32_t third = host.heartbeat->interval_ms / 3;
    if (third == 0)
        third = 1;
    return third < (uint32_t)limit ? (int)third : limit;
}
