// Every process forks again, 3,000 in all if nobody stops them, and all of them compute.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <sys/mman.h>
int main(void) {
    volatile int *count = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    time_t end = time(0) + 8;
    puts("lighting the fuse");
    fflush(stdout);
    while (time(0) < end)
        if (*count < 3000 && fork() >= 0) __sync_fetch_and_add(count, 1);
}
