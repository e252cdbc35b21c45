// Hides forbidden arguments behind high bits that the kernel ignores.
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
#include <sys/ioctl.h>
#include <sys/personality.h>
#define SHOW(what, call) do { errno = 0; long r_ = (long)(call); printf("%s %s\n", what, r_ == -1 ? strerrorname_np(errno) : "DONE"); } while (0)
int main(void) {
    unsigned long high = 1UL << 32;
    SHOW("vsock", syscall(SYS_socket, 40 | high, SOCK_STREAM, 0));
    SHOW("alg", syscall(SYS_socket, 38 | high, SOCK_SEQPACKET, 0));
    SHOW("netlink", syscall(SYS_socket, 16 | high, SOCK_RAW, 0));
    SHOW("raw", syscall(SYS_socket, AF_INET, SOCK_RAW | high, 1));
    SHOW("raw cloexec", syscall(SYS_socket, AF_INET, SOCK_RAW | SOCK_CLOEXEC, 1));
    SHOW("tiocsti", syscall(SYS_ioctl, 0, TIOCSTI | high, "x"));
    SHOW("tiocsti plain", ioctl(0, TIOCSTI, "x"));
    SHOW("tioclinux", syscall(SYS_ioctl, 0, TIOCLINUX | high, "x"));
    SHOW("tioccons", syscall(SYS_ioctl, 0, TIOCCONS | high, 0));
    SHOW("tiocsetd", syscall(SYS_ioctl, 0, TIOCSETD | high, "x"));
    SHOW("read implies exec", syscall(SYS_personality, READ_IMPLIES_EXEC));
    SHOW("read implies exec high", syscall(SYS_personality, READ_IMPLIES_EXEC | high));
}
