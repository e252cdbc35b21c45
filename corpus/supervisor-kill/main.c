// Sends deadly and stopping signals to process 1, to its parent and to every small number.
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
    if (getuid() == 0) { puts("ROOT: not tried"); return 1; }
    TRY("kill 1 KILL", kill(1, SIGKILL));
    TRY("kill 1 STOP", kill(1, SIGSTOP));
    TRY("kill 1 SEGV", kill(1, SIGSEGV));
    TRY("tgkill 1", syscall(SYS_tgkill, 1, 1, SIGKILL));
    TRY("pidfd_open 1", syscall(SYS_pidfd_open, 1, 0));
    union sigval v = {0};
    TRY("sigqueue 1", sigqueue(1, SIGTERM, v));
    if (getppid() > 0) { TRY("kill parent", kill(getppid(), SIGKILL)); TRY("stop parent", kill(getppid(), SIGSTOP)); }
    int reached = 0;
    for (int pid = 2; pid < 70000; pid++) if (pid != getpid() && kill(pid, SIGKILL) == 0) reached++;
    printf("others reached: %d\n", reached);
}
