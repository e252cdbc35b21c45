// An orphan in a session of its own burns the CPU while the main process waits.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void burn(double seconds) {
    struct timespec t;
    do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); while (t.tv_sec + t.tv_nsec / 1e9 < seconds);
}

int main(void) {
    if (fork() == 0) {
        setsid();
        if (fork() == 0) { burn(20); _exit(0); }
        _exit(0);
    }
    wait(0);
    sleep(20);
    puts("slept");
}
