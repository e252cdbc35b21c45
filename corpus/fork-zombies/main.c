// Children that have ended but are never waited for count as well.
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
        if (p == 0) _exit(0);
        if (p < 0) break;
    }
    printf("%s\n", n < 3000 ? strerrorname_np(errno) : "no limit");
}
