// Asks for every kind of namespace, by unshare, clone, clone3 and setns.
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
#define TRY(what, call) do { errno = 0; long r_ = (long)(call); printf("%s %s\n", what, r_ == -1 ? strerrorname_np(errno) : "DONE"); fflush(stdout); } while (0)

static const struct { const char *name; unsigned long flag; } kinds[] = {{"user", CLONE_NEWUSER}, {"mount", CLONE_NEWNS}, {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
    {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}, {"time", 0x80}, {"user+mount", CLONE_NEWUSER | CLONE_NEWNS}};
int main(void) {
    char what[64];
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        sprintf(what, "unshare %s", kinds[i].name);
        TRY(what, unshare(kinds[i].flag));
        if (kinds[i].flag == 0x80) continue;
        sprintf(what, "clone %s", kinds[i].name);
        errno = 0;
        long p = syscall(SYS_clone, kinds[i].flag | SIGCHLD, 0, 0, 0, 0);
        if (p == 0) _exit(0);
        printf("%s %s\n", what, p < 0 ? strerrorname_np(errno) : "DONE");
        sprintf(what, "clone with high bits %s", kinds[i].name);
        errno = 0;
        p = syscall(SYS_clone, kinds[i].flag | SIGCHLD | 1UL << 32, 0, 0, 0, 0);
        if (p == 0) _exit(0);
        printf("%s %s\n", what, p < 0 ? strerrorname_np(errno) : "DONE");
        fflush(stdout);
    }
    unsigned long args[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    long p = syscall(SYS_clone3, args, sizeof args);
    if (p == 0) _exit(0);
    printf("clone3 %s\n", p < 0 ? strerrorname_np(errno) : "DONE");
    TRY("setns own", setns(open("/proc/self/ns/user", O_RDONLY), 0));
    TRY("setns of 1", setns(open("/proc/1/ns/mnt", O_RDONLY), 0));
}
