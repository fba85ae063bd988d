// Has a GNU_UNIQUE symbol: a static inside an inline function.
#define EXPORT extern "C" __attribute__((visibility("default")))

template <typename T> __attribute__((visibility("default"))) inline T &shared()
{
    static T value{};
    return value;
}

EXPORT const char *plugin_get_manifest_json()
{
    return "{}";
}

EXPORT int plugin_init(void *)
{
    return 0;
}

EXPORT int plugin_start()
{
    return ++shared<int>();
}

EXPORT int plugin_stop()
{
    return 0;
}

EXPORT void plugin_free_string(char *)
{
}
