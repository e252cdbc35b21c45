// Writes 8 MiB into one file; the limit is 1 MiB and the signal is deadly.
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
    int fd = open("big", O_CREAT | O_WRONLY, 0600);
    for (int i = 0; i < 8; i++) if (write(fd, block, MB) < 0) { printf("write %s\n", strerrorname_np(errno)); return 0; }
    puts("no limit");
}
