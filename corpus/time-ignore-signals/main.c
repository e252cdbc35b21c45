// Ignores every signal that can be ignored, then sleeps.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    int ignored = 0;
    for (int s = 1; s < 65; s++) ignored += signal(s, SIG_IGN) != SIG_ERR;
    printf("ignored %d signals\n", ignored);
    fflush(stdout);
    for (int i = 0; i < 30; i++) sleep(1);
}
