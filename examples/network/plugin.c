/* A plugin that reaches a server through the host, the only way there is from a sandbox: it sends a line, and logs the first line of
 * the answer. With --set peer=localhost --set port=8080 --set line=hello; network.allow of plugin.yaml lists where it may go. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <supervm/supervm.h>

#define TIMEOUT_MS 5000

static const struct supervm_host_vtable *host;
static const struct supervm_net_1 *net;
static char peer[256] = "localhost", port[8] = "8080", line[256] = "hello";

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
    return "{\"id\": \"org.supervm.example-network\", \"name\": \"network example\", \"version\": \"0.1.0\", \"chain\": \"dev\","
           " \"capabilities\": []}";
}
SUPERVM_EXPORT void plugin_free_string(char *text) { (void)text; }

/* A setting's text, where it is there; an example needs no more of JSON than that. */
static void take(const char *json, const char *name, char *place, size_t size)
{
    char key[32];
    snprintf(key, sizeof key, "\"%s\": \"", name);
    const char *found = strstr(json, key);
    if (found) {
        found += strlen(key);
        snprintf(place, size, "%.*s", (int)strcspn(found, "\""), found);
    }
}

SUPERVM_EXPORT int plugin_init(void *vtable)
{
    host = vtable;
    net = host->host_get_extension(SUPERVM_NET_1);
    if (!net) {
        host->host_log(SUPERVM_LOG_ERROR, "network.allow was not granted");
        return 1;
    }
    const struct supervm_config_1 *config = host->host_get_extension(SUPERVM_CONFIG_1);
    const char *json;
    uint64_t length;
    if (config->get(config->host, &json, &length) != SUPERVM_OK)
        return 1;
    take(json, "peer", peer, sizeof peer);
    take(json, "port", port, sizeof port);
    take(json, "line", line, sizeof line);
    return 0;
}

SUPERVM_EXPORT int plugin_start(void)
{
    char answer[512];
    int fd;
    int32_t status = net->connect(net->host, peer, (uint16_t)atoi(port), 0, TIMEOUT_MS, &fd);
    if (status != SUPERVM_OK) {
        snprintf(answer, sizeof answer, "%s:%s cannot be reached (%d)", peer, port, status);
        host->host_log(SUPERVM_LOG_WARNING, answer);
        return 0;
    }
    /* From here on it is an ordinary connected socket. */
    size_t size = (size_t)snprintf(answer, sizeof answer, "%s\n", line);
    ssize_t count = write(fd, answer, size) == (ssize_t)size ? read(fd, answer, sizeof answer - 1) : -1;
    close(fd);
    answer[count > 0 ? count : 0] = 0;
    answer[strcspn(answer, "\r\n")] = 0;
    host->host_log(SUPERVM_LOG_INFO, answer);
    return 0;
}

SUPERVM_EXPORT int plugin_stop(void) { return 0; }
