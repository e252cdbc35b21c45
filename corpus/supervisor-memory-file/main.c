// Overwrites the program that started it, by way of /proc.
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
#define TRY(what, call) do { errno = 0; long r_ = (long)(call); printf("%s %s\n", what, r_ == -1 ? strerrorname_np(errno) : "DONE"); fflush(stdout); } while (0)
int main(void) { char path[64]; TRY("exe of self", open("/proc/self/exe", O_WRONLY)); TRY("exe of 1", open("/proc/1/exe", O_WRONLY)); sprintf(path, "/proc/%d/exe", getppid()); TRY("exe of parent", open(path, O_WRONLY)); TRY("exe of thread", open("/proc/thread-self/exe", O_WRONLY)); }
