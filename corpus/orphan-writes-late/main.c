// A child goes on writing after the main process has ended.
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
    if (fork() == 0) for (int i = 0; i < 600; i++) { if (write(2, ".", 1) < 0) break; usleep(100000); }
}
