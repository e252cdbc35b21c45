// Follows every way out it can think of: dot-dot, links in /proc, descriptors on directories.
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

int main(void) {
    char where[4096];
    int root = open("/", O_RDONLY | O_DIRECTORY), fd;
    struct stat a, b;
    for (int i = 0; i < 64; i++) if (chdir("..")) break;
    printf("up: %s\n", getcwd(where, sizeof where) ? where : strerrorname_np(errno));
    fd = openat(root, "../../../../etc/shadow", O_RDONLY);
    printf("openat: %s\n", fd < 0 ? strerrorname_np(errno) : "ESCAPED");
    fd = open("/proc/1/root/etc/shadow", O_RDONLY);
    printf("proc: %s\n", fd < 0 ? strerrorname_np(errno) : "ESCAPED");
    stat("/", &a);
    stat("/..", &b);
    printf("dot-dot of the root: %s\n", a.st_ino == b.st_ino && a.st_dev == b.st_dev ? "itself" : "ESCAPED");
    struct { unsigned bytes; int type; unsigned char h[8]; } handle = {8, 1, {2}};
    printf("handle: %s\n", syscall(SYS_open_by_handle_at, root, &handle, O_RDONLY) < 0 ? strerrorname_np(errno) : "ESCAPED");
}
