/* Written from the specification's sentences alone: no header of the host's. It logs, reports, submits, and then is quiet. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct host_api {
    void (*host_log)(int level, const char *msg);
    int (*host_submit_tx)(const char *chain_id, const uint8_t *tx, size_t len);
    int (*host_report_metric)(const char *name, double value);
    int (*host_request_shutdown)(int reason_code);
};

static struct host_api *host;

#define API __attribute__((visibility("default")))

API const char *plugin_get_manifest_json(void) {
    return "{\"id\": \"org.example.v0\", \"name\": \"quiet\", \"version\": \"0.1.0\", \"chain\": \"bitcoin\","
           " \"capabilities\": [\"submit_tx\"]}";
}
API void plugin_free_string(char *text) { (void)text; }
API int plugin_init(void *vtable) {
    host = vtable;
    host->host_log(2, "quiet: init");
    return 0;
}
API int plugin_start(void) {
    char text[64];
    const uint8_t transaction[] = {1, 2, 3};
    host->host_report_metric("answer", 42.0);
    snprintf(text, sizeof text, "quiet: submit answered %d", host->host_submit_tx("bitcoin", transaction, sizeof transaction));
    host->host_log(2, text);
    return 0;
}
API int plugin_stop(void) { return 0; }
