// Uses up timers, queued signals, watches and event descriptors.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>

int main(void) {
    int n;
    struct sigevent quiet = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t t;
    for (n = 0; n < 5000 && timer_create(CLOCK_MONOTONIC, &quiet, &t) == 0; n++) { }
    printf("timers %s\n", n < 5000 ? strerrorname_np(errno) : "no limit");
    for (n = 0; n < 5000 && inotify_init1(0) >= 0; n++) { }
    printf("inotify %s\n", n < 5000 ? strerrorname_np(errno) : "NO LIMIT");
    for (n = 0; n < 5000 && epoll_create1(0) >= 0; n++) { }
    printf("epoll %s\n", n < 5000 ? strerrorname_np(errno) : "NO LIMIT");
    for (n = 0; n < 5000 && eventfd(0, 0) >= 0; n++) { }
    printf("eventfd %s\n", n < 5000 ? strerrorname_np(errno) : "NO LIMIT");
}
