/* Its destructor never returns, with the dynamic linker's lock held. The host names the deadline, and abandons it. */
#include "good.h"

__attribute__((destructor)) static void destruct(void) { hang(); }
