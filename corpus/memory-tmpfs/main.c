// Fills /box with 60 MiB under a memory limit of 32 MiB: files there are memory.
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

static char block[MB];
int main(void) {
    memset(block, 1, sizeof block);
    for (int i = 0; i < 60; i++) {
        char name[16];
        sprintf(name, "f%d", i);
        int fd = open(name, O_CREAT | O_WRONLY, 0600);
        if (fd < 0 || write(fd, block, MB) != MB) { printf("write: %s\n", strerrorname_np(errno)); return 1; }
        close(fd);
    }
    puts("wrote 60 MiB");
}
