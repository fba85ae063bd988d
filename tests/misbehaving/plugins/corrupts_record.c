/* Publishes a record whose header it wrote itself, with lengths beyond the ring. The host says that the ring is broken. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    uint8_t *place;
    EXPECT(sink->reserve(sink->host, 8, &place) == SUPERVM_OK);
    uint64_t lengths[2] = {64, UINT64_C(1) << 40};
    memcpy(place - 64, lengths, sizeof lengths);
    _Atomic uint64_t *head = (_Atomic uint64_t *)(place - 64 - (size_t)sysconf(_SC_PAGESIZE));
    atomic_store(head, 64);
    EXPECT(sink->abandon(sink->host) == SUPERVM_OK);
    return 0;
}
