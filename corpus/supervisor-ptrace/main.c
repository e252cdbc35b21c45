// Traces, reads and writes process 1, its parent, and itself.
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
    char here[16] = "", there[16] = "";
    struct iovec a = {here, 16}, b = {there, 16};
    TRY("attach 1", ptrace(PTRACE_ATTACH, 1, 0, 0));
    TRY("attach parent", ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    TRY("seize parent", ptrace(PTRACE_SEIZE, getppid(), 0, 0));
    TRY("traceme", ptrace(PTRACE_TRACEME, 0, 0, 0));
    TRY("readv self", process_vm_readv(getpid(), &a, 1, &b, 1, 0));
    TRY("writev self", process_vm_writev(getpid(), &a, 1, &b, 1, 0));
    TRY("readv 1", process_vm_readv(1, &a, 1, &b, 1, 0));
    TRY("pidfd_getfd", syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, getpid(), 0), 1, 0));
    TRY("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 1));
    TRY("mem of 1", open("/proc/1/mem", O_RDWR));
}
