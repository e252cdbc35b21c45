// 5,000 short processes one after another: slow, but allowed.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    int ok = 0;
    for (int i = 0; i < 5000; i++) {
        pid_t p = vfork();
        if (p == 0) _exit(0);
        if (p > 0 && waitpid(p, 0, 0) == p) ok++;
    }
    printf("%d\n", ok);
}
