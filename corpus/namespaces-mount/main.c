// Mounts, unmounts and changes its root, by the old and by the new calls.
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
    TRY("mount tmpfs", mount("none", "/tmp", "tmpfs", 0, ""));
    TRY("mount proc", mount("proc", "/tmp", "proc", 0, ""));
    TRY("bind", mount("/usr", "/tmp", 0, MS_BIND, 0));
    TRY("remount", mount(0, "/", 0, MS_REMOUNT | MS_BIND, 0));
    TRY("make shared", mount(0, "/", 0, MS_SHARED | MS_REC, 0));
    TRY("umount proc", umount2("/proc", MNT_DETACH));
    TRY("umount box", umount2("/box", MNT_DETACH));
    TRY("chroot", chroot("/box"));
    TRY("pivot_root", syscall(SYS_pivot_root, "/box", "/box"));
    TRY("open_tree", syscall(428, -100, "/", 1));
    TRY("move_mount", syscall(429, -100, "/tmp", -100, "/box", 0));
    TRY("fsopen", syscall(430, "tmpfs", 0));
    TRY("fsconfig", syscall(431, -1, 0, 0, 0, 0));
    TRY("fsmount", syscall(432, -1, 0, 0));
    TRY("fspick", syscall(433, -100, "/", 0));
    TRY("mount_setattr", syscall(442, -100, "/", 0, 0, 0));
}
