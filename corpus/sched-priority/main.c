// Asks for more than its share: priority, real time, other processors, another clock.
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

int main(void) {
    struct sched_param p = {1};
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    TRY("nice", (nice(-5) == -1 && errno) ? -1 : 0);
    TRY("setpriority", setpriority(PRIO_PROCESS, 0, -20));
    TRY("fifo", sched_setscheduler(0, SCHED_FIFO, &p));
    TRY("rr", sched_setscheduler(0, SCHED_RR, &p));
    struct { unsigned size, policy; unsigned long flags; int nice; unsigned prio; unsigned long runtime, deadline, period; } attr = {48, 6, 0, 0, 0, 10000000, 20000000, 20000000};
    TRY("deadline", syscall(SYS_sched_setattr, 0, &attr, 0));
    TRY("ioprio", syscall(SYS_ioprio_set, 1, 0, 1 << 13));
    TRY("time namespace", unshare(0x80));
    struct timespec t = {1, 0};
    TRY("clock_settime", clock_settime(CLOCK_REALTIME, &t));
    TRY("timer slack of process 1", write(open("/proc/1/timerslack_ns", O_WRONLY), "1", 1));
    printf("affinity %s\n", sched_setaffinity(0, sizeof all, &all) ? strerrorname_np(errno) : "accepted, within the cpuset");
}
