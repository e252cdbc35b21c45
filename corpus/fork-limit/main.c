// Forks 3,000 times; the limit answers EAGAIN.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <errno.h>
#include <string.h>
int main(void) {
    int n = 0;
    for (; n < 3000; n++) {
        pid_t p = fork();
        if (p == 0) { alarm(10); pause(); _exit(0); }
        if (p < 0) break;
    }
    printf("%s after %s\n", n < 3000 ? strerrorname_np(errno) : "no limit", n <= 64 ? "at most 64" : "more than 64");
}
