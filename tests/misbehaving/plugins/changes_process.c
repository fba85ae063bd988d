/* Changes the working directory, umask, locale and environment of its process. Nothing in its process hinders it. */
#include <locale.h>
#include <sys/stat.h>

#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    EXPECT(chdir("/") == 0);
    umask(0777);
    setlocale(LC_ALL, "C");
    EXPECT(setenv("MISBEHAVING", "1", 1) == 0);
    EXPECT(publish_chain(10) == SUPERVM_OK);
    done();
    return 0;
}
