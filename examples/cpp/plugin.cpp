// A plugin in C++: inline statics (GNU_UNIQUE), for which it is refused in process, threads of the standard library, exceptions.
// With the setting {"act": "throws"} it lets one out, which ends its own process and nothing else.
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <supervm/supervm.h>

template <typename T> struct Shared {
    static inline std::vector<T> values;
};

static const supervm_host_vtable *host;
static std::string configuration;

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
    return R"({"id": "org.supervm.example-cpp", "name": "C++ example", "version": "0.1.0", "chain": "dev", "capabilities": ["block_stream"]})";
}
SUPERVM_EXPORT void plugin_free_string(char *) {}
SUPERVM_EXPORT int plugin_init(void *vtable)
{
    host = static_cast<const supervm_host_vtable *>(vtable);
    auto config = static_cast<const supervm_config_1 *>(host->host_get_extension(SUPERVM_CONFIG_1));
    const char *json;
    uint64_t length;
    config->get(config->host, &json, &length);
    configuration.assign(json, length);
    return 0;
}
SUPERVM_EXPORT int plugin_start(void)
{
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([] { Shared<int>().values.reserve(1); });
    for (auto &thread : threads)
        thread.join();
    try {
        throw std::runtime_error("one that is caught");
    } catch (const std::exception &error) {
        host->host_log(SUPERVM_LOG_INFO, error.what());
    }
    if (configuration.find("throws") != std::string::npos)
        throw std::runtime_error("one that is not");
    return 0;
}
SUPERVM_EXPORT int plugin_stop(void) { return 0; }
