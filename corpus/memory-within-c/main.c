// Touches 100 of 256 MiB.
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
int main(void) { char *p = keep = malloc(100 * MB); memset(p, 1, 100 * MB); printf("%d\n", p[12345678]); }
