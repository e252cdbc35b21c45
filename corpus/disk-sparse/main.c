// Makes a sparse file of 1 TiB, by seeking, by truncating, and by asking for the blocks.
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
#include <signal.h>
int main(void) {
    signal(SIGXFSZ, SIG_IGN);
    int fd = open("sparse", O_CREAT | O_RDWR, 0600);
    printf("truncate %s\n", ftruncate(fd, 1L << 40) ? strerrorname_np(errno) : "ALLOWED");
    printf("seek %s\n", pwrite(fd, "x", 1, 1L << 40) < 0 ? strerrorname_np(errno) : "ALLOWED");
    printf("fallocate %s\n", fallocate(fd, 0, 0, 10L << 30) ? strerrorname_np(errno) : "ALLOWED");
}
