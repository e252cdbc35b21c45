// Makes brothers instead of children: who waits for the main process gets processes it never started.
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    int made = 0;
    for (int i = 0; i < 20; i++) {
        long p = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        if (p == 0) _exit(7);
        if (p > 0) made++; else { printf("clone: %s\n", strerrorname_np(errno)); break; }
    }
    usleep(200000);
    printf("made %d brothers, leaving with 3\n", made);
    return 3;
}
