// Allocates and touches 2 GiB.
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
    for (int i = 1; i <= 2048; i++) {
        char *p = keep = malloc(MB);
        if (!p) { printf("malloc said no after %d MiB\n", i); return 1; }
        memset(p, i, MB);
    }
    puts("had 2 GiB");
}
