// Prints its core limit, tries to raise it, and crashes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <sys/resource.h>
int main(void) { struct rlimit l; getrlimit(RLIMIT_CORE, &l); printf("core %lu %lu\n", l.rlim_cur, l.rlim_max); l.rlim_cur = l.rlim_max = 1 << 20; printf("raise %s\n", setrlimit(RLIMIT_CORE, &l) ? strerrorname_np(errno) : "ALLOWED"); fflush(stdout); abort(); }
