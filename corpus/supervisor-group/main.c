// Kills its own process group, with a child in it that would report.
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
int main(void) { puts("before"); fflush(stdout); if (fork() == 0) { usleep(100000); puts("child survived"); _exit(0); } kill(0, SIGTERM); puts("survived"); return 0; }
