// The same with the signal ignored: write says EFBIG, the program decides.
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
#include <signal.h>
static char block[MB];
int main(void) {
    signal(SIGXFSZ, SIG_IGN);
    int fd = open("big", O_CREAT | O_WRONLY, 0600);
    for (int i = 0; i < 8; i++) if (write(fd, block, MB) < 0) { printf("write %s\n", strerrorname_np(errno)); return 0; }
    puts("no limit");
}
