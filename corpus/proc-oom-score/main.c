// Tries to make itself the last one that the OOM killer would take.
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
int main(void) { int fd = open("/proc/self/oom_score_adj", O_WRONLY); if (fd < 0) { printf("open %s\n", strerrorname_np(errno)); return 0; } printf("write %s\n", write(fd, "-1000", 5) < 0 ? strerrorname_np(errno) : "LOWERED"); }
