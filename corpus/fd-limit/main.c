// Opens /dev/null 3,000 times, then makes pipes.
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

int main(void) {
    int n = 0;
    while (n < 3000 && open("/dev/null", O_RDONLY) >= 0) n++;
    printf("%s\n", n < 3000 ? strerrorname_np(errno) : "no limit");
    int p[2];
    printf("pipe %s\n", pipe(p) ? strerrorname_np(errno) : "made");
}
