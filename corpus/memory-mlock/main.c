// Asks to lock 64 MiB in memory.
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
    char *p = mmap(0, 64 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("mlock %s\n", mlock(p, 64 * MB) ? strerrorname_np(errno) : "ALLOWED");
    printf("mlockall %s\n", mlockall(MCL_CURRENT | MCL_FUTURE) ? strerrorname_np(errno) : "ALLOWED");
    p = mmap(0, 2 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    printf("hugetlb %s\n", p == MAP_FAILED ? strerrorname_np(errno) : "ALLOWED");
}
