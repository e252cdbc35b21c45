// Creates System V and POSIX objects by the thousand.
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
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
int main(void) {
    int n;
    for (n = 0; n < 5000 && shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600) >= 0; n++) { }
    printf("shm %s\n", n < 5000 ? strerrorname_np(errno) : "5000");
    for (n = 0; n < 5000 && semget(IPC_PRIVATE, 1, IPC_CREAT | 0600) >= 0; n++) { }
    printf("sem %s\n", n < 5000 ? strerrorname_np(errno) : "5000");
    for (n = 0; n < 5000 && msgget(IPC_PRIVATE, IPC_CREAT | 0600) >= 0; n++) { }
    printf("msg %s\n", n < 5000 ? strerrorname_np(errno) : "5000");
    char name[32];
    for (n = 0; n < 100; n++) { sprintf(name, "/queue%d", n); if (mq_open(name, O_CREAT | O_RDWR, 0600, (void *)0) < 0) break; }
    printf("mqueue %s\n", n < 100 ? strerrorname_np(errno) : "NO LIMIT");
    puts("done");
}
