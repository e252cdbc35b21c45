// Tries to lift its own CPU limit, catches SIGXCPU, and goes on.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void caught(int s) { (void)s; }
int main(void) {
    struct rlimit l = {RLIM_INFINITY, RLIM_INFINITY};
    printf("setrlimit: %d\n", setrlimit(RLIMIT_CPU, &l));
    fflush(stdout);
    signal(SIGXCPU, caught);
    for (;;) { }
}
