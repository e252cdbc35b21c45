// Calls that runtimes need and that must go on working.
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
#include <sys/personality.h>
#include <sys/random.h>

#define NEED(what, call) do { errno = 0; if ((long)(call) == -1) { printf("%s %s\n", what, strerrorname_np(errno)); bad++; } } while (0)
int main(void) {
    int bad = 0, p[2];
    char b[8];
    cpu_set_t set;
    NEED("memfd_create", memfd_create("m", MFD_CLOEXEC));
    NEED("pidfd_open", syscall(SYS_pidfd_open, getpid(), 0));
    NEED("close_range", syscall(SYS_close_range, 100, 200, 0));
    NEED("openat2", syscall(437, AT_FDCWD, "/box", (unsigned long[3]){O_RDONLY}, 24));
    NEED("statx", syscall(SYS_statx, AT_FDCWD, "/box", 0, 0x7ff, (char[256]){0}));
    NEED("sched_getaffinity", sched_getaffinity(0, sizeof set, &set));
    NEED("sched_yield", sched_yield());
    NEED("personality", personality(0xffffffff));
    NEED("no randomisation", personality(ADDR_NO_RANDOMIZE));
    NEED("getrandom", getrandom(b, 8, 0));
    NEED("pipe2", pipe2(p, O_CLOEXEC));
    NEED("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    NEED("inet", socket(AF_INET, SOCK_STREAM, 0));
    NEED("inet6", socket(AF_INET6, SOCK_DGRAM, 0));
    NEED("executable memory", mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    NEED("prctl name", prctl(PR_SET_NAME, "renamed"));
    NEED("no new privileges", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    NEED("membarrier", syscall(SYS_membarrier, 0, 0, 0));
    printf("%d refused\n", bad);
}
