// Changes the limits of others and asks for signals to be sent to them.
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
    struct rlimit l = {1, 1};
    TRY("prlimit 1", prlimit(1, RLIMIT_CPU, &l, 0));
    TRY("prlimit parent", getppid() ? prlimit(getppid(), RLIMIT_CPU, &l, 0) : (errno = ESRCH, -1));
    int s[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, s)) return 1;
    errno = 0;
    printf("F_SETOWN -1: %s\n", fcntl(s[0], F_SETOWN, -1) ? strerrorname_np(errno) : "set");
    fcntl(s[0], F_SETSIG, SIGKILL);
    fcntl(s[0], F_SETFL, O_ASYNC | O_NONBLOCK);
    printf("F_SETOWN 1: %s\n", fcntl(s[0], F_SETOWN, 1) ? strerrorname_np(errno) : "set");
    if (write(s[1], "x", 1) != 1) return 1;
    usleep(50000);
    puts("nothing happened");
}
