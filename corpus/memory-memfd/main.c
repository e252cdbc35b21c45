// Touches 2 GiB in memfds of 8 MiB, out of reach of the tmpfs limits.
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
#define MB (1 << 20)

int main(void) {
    for (int i = 0; i < 256; i++) {
        int fd = memfd_create("m", 0);
        if (fd < 0 || ftruncate(fd, 8 * MB)) { printf("memfd: %s\n", strerrorname_np(errno)); return 1; }
        char *p = mmap(0, 8 * MB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (p == MAP_FAILED) { printf("mmap: %s\n", strerrorname_np(errno)); return 1; }
        memset(p, 1, 8 * MB);
    }
    puts("had 2 GiB");
}
