/* The positive control: the same attacks without a sandbox. control ATTACK SECRET PORT PROCESS; prints what it answered. */
#include "attacks.h"

/* What is to arrive at a host has to arrive at the other end of a socket, and at an event. */
static int arrives(const char *name, const struct aim *aim)
{
    int pair[2], event = eventfd(0, EFD_NONBLOCK);
    uint64_t seen[8];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0) return errno;
    int answer = attack(name, aim);
    if (answer != 0) return answer;
    return said(read(strcmp(name, "wake_host") == 0 ? event : pair[0], seen, sizeof seen));
}

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    struct aim aim = {.secret = argv[2], .port = atoi(argv[3]), .process = atoi(argv[4])};
    int against_host = strncmp(argv[1], "forge_", 6) == 0 || strcmp(argv[1], "wake_host") == 0;
    printf("%d\n", (against_host ? arrives : attack)(argv[1], &aim));
    return 0;
}
