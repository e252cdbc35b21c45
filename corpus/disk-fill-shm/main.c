// Fills /dev/shm, at most 512 MiB.
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
    for (int i = 0; i < 512; i++) {
        char name[64];
        sprintf(name, "/dev/shm/fill%d", i);
        int fd = open(name, O_CREAT | O_WRONLY, 0600);
        if (fd < 0) { printf("open %s\n", strerrorname_np(errno)); return 0; }
        if (write(fd, block, MB) != MB && write(fd, block, MB) != MB) { printf("write %s after %s MiB\n", strerrorname_np(errno), i <= 64 ? "at most 64" : "more than 64"); return 0; }
        close(fd);
    }
    puts("no limit");
}
