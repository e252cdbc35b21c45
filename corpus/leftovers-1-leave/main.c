// Leaves files, memory, semaphores, queues, sockets, keys and daemons for the next job.
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
#include <sys/stat.h>
#include <sys/un.h>
static void leave(const char *path) {
    int fd = open(path, O_CREAT | O_WRONLY, 0777);
    printf("%s %s\n", path, fd < 0 ? strerrorname_np(errno) : "left");
    if (fd >= 0) { if (write(fd, "#!/bin/sh\necho left behind\n", 27) < 0) perror("write"); close(fd); }
}
int main(void) {
    const char *files[] = {"/box/leftover", "/tmp/leftover", "/dev/shm/leftover", "/var/tmp/leftover", "/box/.bashrc", "/box/.profile", "/box/.npmrc", "/box/.sqliterc", "/box/.gitconfig"};
    for (int i = 0; i < 9; i++) leave(files[i]);
    printf("shm %s\n", shmget(0x6761, 4096, IPC_CREAT | 0666) < 0 ? strerrorname_np(errno) : "left");
    printf("sem %s\n", semget(0x6762, 1, IPC_CREAT | 0666) < 0 ? strerrorname_np(errno) : "left");
    printf("msg %s\n", msgget(0x6763, IPC_CREAT | 0666) < 0 ? strerrorname_np(errno) : "left");
    printf("mqueue %s\n", mq_open("/leftover", O_CREAT | O_RDWR, 0666, (void *)0) < 0 ? strerrorname_np(errno) : "left");
    printf("key %s\n", syscall(SYS_add_key, "user", "leftover", "x", 1, -4) < 0 ? strerrorname_np(errno) : "left");
    fflush(stdout);
    if (fork() == 0) {
        setsid();
        if (fork() > 0) _exit(0);
        struct sockaddr_un a = {AF_UNIX, "\0leftover"};
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        if (bind(s, (void *)&a, sizeof a) == 0) listen(s, 5);
        struct sockaddr_un b = {AF_UNIX, "/tmp/leftover.socket"};
        s = socket(AF_UNIX, SOCK_STREAM, 0);
        if (bind(s, (void *)&b, sizeof b) == 0) listen(s, 5);
        close(0);
        close(1);
        close(2);
        sleep(60);
        _exit(0);
    }
    wait(0);
    usleep(100000);
    puts("daemon left");
}
