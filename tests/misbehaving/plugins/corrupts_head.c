/* Writes a wrong head into the ring's shared words. The host says that the ring is broken, and believes nothing more of it. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    uint8_t *place;
    EXPECT(sink->reserve(sink->host, 8, &place) == SUPERVM_OK);
    /* The first record begins the data; before it lies the page of the producer's words, the head foremost. */
    _Atomic uint64_t *head = (_Atomic uint64_t *)(place - 64 - (size_t)sysconf(_SC_PAGESIZE));
    atomic_store(head, UINT64_C(0x4141414141414140));
    EXPECT(sink->abandon(sink->host) == SUPERVM_OK);
    return 0;
}
