// Creates files where none may be created and opens system files for writing.
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

static const char *places[] = {"/", "/usr", "/usr/bin", "/usr/lib", "/usr/local/bin", "/usr/share", "/etc", "/etc/alternatives", "/bin", "/lib", "/lib64",
    "/dev", "/proc", "/proc/self", "/sys", "/var", "/var/lib", "/home", "/root", "/opt", "/run", "/agent", "/sys/fs/cgroup", "/dev/mqueue"};
static const char *files[] = {"/etc/passwd", "/etc/group", "/etc/ld.so.cache", "/etc/hosts", "/bin/sh", "/usr/bin/env", "/lib64/ld-linux-x86-64.so.2",
    "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches", "/proc/1/oom_score_adj", "/proc/1/mem",
    "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/proc/1/exe", "/proc/1/fd/1"};
int main(void) {
    char path[128];
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        sprintf(path, "%s/gavel-was-here", places[i]);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        printf("create %s: %s\n", path, fd < 0 ? strerrorname_np(errno) : "WRITTEN");
        printf("mkdir %s: %s\n", path, mkdir(path, 0700) ? strerrorname_np(errno) : "WRITTEN");
    }
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        int fd = open(files[i], O_WRONLY | O_NONBLOCK);
        printf("open %s: %s\n", files[i], fd < 0 ? strerrorname_np(errno) : "WRITTEN");
        printf("unlink %s: %s\n", files[i], unlink(files[i]) ? strerrorname_np(errno) : "WRITTEN");
        printf("chmod %s: %s\n", files[i], chmod(files[i], 0777) ? strerrorname_np(errno) : "WRITTEN");
        printf("rename %s: %s\n", files[i], rename(files[i], "/box/taken") ? strerrorname_np(errno) : "WRITTEN");
    }
}
