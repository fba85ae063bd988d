/* Its constructor never returns, with the dynamic linker's lock held. The host names the deadline, and abandons it. */
#include "good.h"

__attribute__((constructor)) static void construct(void) { hang(); }
