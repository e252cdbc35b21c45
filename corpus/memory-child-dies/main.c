// A child takes too much and is killed; the parent ends well. The limit was hit all the same.
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
    if (fork() == 0) { for (int i = 0; i < 2048; i++) { char *p = keep = malloc(MB); if (!p) _exit(1); memset(p, 1, MB); } _exit(0); }
    wait(0);
    puts("the parent is fine");
}
