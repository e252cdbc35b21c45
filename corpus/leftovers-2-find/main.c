// Looks for everything that leftovers-1-leave left.
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
#include <ctype.h>
#include <dirent.h>
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/un.h>
static int found;
static void look(const char *what, int there) { if (there) { printf("FOUND %s\n", what); found++; } }
int main(void) {
    const char *files[] = {"/box/leftover", "/tmp/leftover", "/dev/shm/leftover", "/var/tmp/leftover", "/box/.bashrc", "/box/.profile", "/box/.npmrc", "/box/.sqliterc", "/box/.gitconfig", "/tmp/leftover.socket"};
    for (int i = 0; i < 10; i++) look(files[i], access(files[i], F_OK) == 0);
    look("shm", shmget(0x6761, 4096, 0) >= 0);
    look("sem", semget(0x6762, 1, 0) >= 0);
    look("msg", msgget(0x6763, 0) >= 0);
    look("mqueue", mq_open("/leftover", O_RDONLY) >= 0);
    look("key", syscall(SYS_request_key, "user", "leftover", (void *)0, 0) >= 0);
    struct sockaddr_un a = {AF_UNIX, "\0leftover"};
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    look("abstract socket", connect(s, (void *)&a, sizeof a) == 0);
    const char *places[] = {"/tmp", "/dev/shm"};
    for (int i = 0; i < 2; i++) {
        struct dirent *e;
        DIR *d = opendir(places[i]);
        while (d && (e = readdir(d))) if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) look(e->d_name, 1);
    }
    struct dirent *e;
    DIR *d = opendir("/proc");
    while (d && (e = readdir(d))) if (isdigit((unsigned char)*e->d_name) && atoi(e->d_name) != 1 && atoi(e->d_name) != getpid()) look("process", 1);
    printf("%d found\n", found);
}
