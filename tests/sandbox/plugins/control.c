/* The positive control: the same attacks without a sandbox. control ATTACK SECRET PORT PROCESS; prints what it answered. */
#include "attacks.h"

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    struct aim aim = {.secret = argv[2], .port = atoi(argv[3]), .process = atoi(argv[4])};
    printf("%d\n", attack(argv[1], &aim));
    return 0;
}
