// Leads a session of its own, has no terminal, and its parent is nobody it may touch.
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
    printf("session %s\n", getsid(0) == getpid() ? "own" : "INHERITED");
    printf("group %s\n", getpgrp() == getpid() ? "own" : "INHERITED");
    printf("process 1: %s\n", getpid() == 1 ? "IT IS ME" : "another");
    for (int fd = 0; fd < 3; fd++) printf("tty %d: %s\n", fd, isatty(fd) ? "YES" : "no");
    const char *paths[] = {"/dev/tty", "/dev/console", "/dev/ptmx", "/dev/pts/0", "/dev/tty0", "/dev/ttyS0"};
    for (int i = 0; i < 6; i++) printf("%s %s\n", paths[i], open(paths[i], O_RDWR | O_NOCTTY) < 0 ? strerrorname_np(errno) : "OPENED");
}
