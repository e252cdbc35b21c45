// Leaves a sleeping daemon behind and ends.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    if (fork() == 0) { setsid(); if (fork() == 0) { close(0); close(1); close(2); sleep(60); } _exit(0); }
    wait(0);
    puts("main is done");
}
