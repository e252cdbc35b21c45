// A process that becomes a new process every millisecond, to outrun who kills by number.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    puts("main is done");
    fflush(stdout);
    if (fork() == 0) {
        setsid();
        for (int i = 0; i < 20000; i++) { if (fork() > 0) _exit(0); usleep(1000); }
        _exit(0);
    }
}
