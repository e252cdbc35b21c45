// Raises every limit above its hard value.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    const char *names[] = {"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"};
    for (int i = 0; i < 16; i++) {
        struct rlimit l;
        getrlimit(i, &l);
        if (l.rlim_max == RLIM_INFINITY) { printf("%s unlimited\n", names[i]); continue; }
        struct rlimit more = {l.rlim_max, l.rlim_max + 1};
        printf("%s %s\n", names[i], setrlimit(i, &more) ? strerrorname_np(errno) : "RAISED");
    }
}
