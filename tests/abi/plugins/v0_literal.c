/* A plugin written from the specification's sentences alone. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    void (*host_log)(int level, const char *msg);
    int (*host_submit_tx)(const char *chain_id, const uint8_t *tx, size_t len);
    int (*host_report_metric)(const char *name, double value);
    int (*host_request_shutdown)(int reason_code);
} host_api;

static host_api *api;

#define API __attribute__((visibility("default")))

API const char *plugin_get_manifest_json()
{
    const char *text = "{\"id\": \"org.example.v0\", \"name\": \"v0\", \"version\": \"0.1.0\"}";
    char *copy = malloc(strlen(text) + 1);
    return copy ? strcpy(copy, text) : NULL;
}

API int plugin_init(void *host_api_vtable)
{
    api = host_api_vtable;
    api->host_log(2, "v0 init");
    return 0;
}

API int plugin_start()
{
    const uint8_t tx[] = {1, 2, 3};
    char text[64];
    api->host_report_metric("blocks", 7.5);
    snprintf(text, sizeof text, "submit_tx answered %d", api->host_submit_tx("bitcoin", tx, sizeof tx));
    api->host_log(3, text);
    return api->host_request_shutdown(42);
}

API int plugin_stop()
{
    api->host_log(2, "v0 stop");
    return 0;
}

API void plugin_free_string(char *s)
{
    free(s);
}
