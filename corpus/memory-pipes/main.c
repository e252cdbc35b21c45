// Fills the kernel buffers of many pipes and sockets.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sys/socket.h>
int main(void) {
    static char block[1 << 16];
    long total = 0;
    int pairs = 0;
    for (; pairs < 2000; pairs++) {
        int p[2];
        if (pairs % 2 ? pipe(p) : socketpair(AF_UNIX, SOCK_STREAM, 0, p)) break;
        fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
        fcntl(p[1], F_SETFL, O_NONBLOCK);
        for (long n; (n = write(p[1], block, sizeof block)) > 0 && total < 2000L << 20;) total += n;
    }
    printf("%s with %s pairs\n", strerrorname_np(errno), pairs > 10 ? "many" : "few");
}
