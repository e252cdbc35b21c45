// 32 processes with 64 MiB each.
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
static char *volatile keep; /* or the compiler would leave the allocation out */

int main(void) {
    for (int i = 0; i < 32; i++)
        if (fork() == 0) { char *p = keep = malloc(64 * MB); if (p) memset(p, 1, 64 * MB); alarm(3); pause(); _exit(0); }
    while (wait(0) > 0) { }
    puts("all children had their 64 MiB");
}
