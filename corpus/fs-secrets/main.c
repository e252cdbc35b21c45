// Looks for what only the host should see.
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

#include <dirent.h>
static const char *paths[] = {
    "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh", "/etc/gavel", "/root", "/home", "/boot", "/mnt", "/media", "/srv", "/opt",
    "/var/log", "/var/cache", "/var/spool", "/var/backups", "/var/lib/dpkg", "/var/lib/postgresql", "/var/lib/docker", "/var/lib/gavel",
    "/run", "/run/docker.sock", "/var/run/docker.sock", "/run/postgresql", "/run/systemd",
    "/sys", "/sys/fs/cgroup", "/sys/kernel", "/sys/class/net", "/sys/firmware",
    "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/vsock", "/dev/tty", "/dev/console", "/dev/ptmx", "/dev/pts", "/dev/loop0",
    "/dev/sda", "/dev/vda", "/dev/net/tun", "/dev/mqueue",
    "/proc/kcore", "/proc/kmsg", "/proc/kallsyms", "/proc/keys", "/proc/key-users", "/proc/sched_debug", "/proc/timer_list", "/proc/sysrq-trigger",
    "/proc/sys", "/proc/bus", "/proc/irq", "/proc/fs", "/proc/acpi", "/proc/modules", "/proc/interrupts", "/proc/iomem",
    "/proc/1/environ", "/proc/1/cmdline", "/proc/1/mem", "/proc/1/maps", "/proc/1/root", "/proc/1/cwd", "/proc/1/exe", "/proc/1/fd",
    "/proc/1/mountinfo", "/proc/1/ns/mnt", "/proc/1/task",
    "/box/../root", "/box/../../etc/shadow", "/proc/self/root/etc/shadow", "/proc/self/cwd/../etc/shadow", "/tmp/../root",
};
int main(void) {
    char byte;
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
        DIR *d = opendir(paths[i]);
        if (d) {
            struct dirent *e;
            int entries = 0;
            while ((e = readdir(d))) if (e->d_name[0] != '.') entries++;
            printf("%s %s\n", paths[i], entries ? "OPEN directory" : "empty");
            closedir(d);
            continue;
        }
        int fd = open(paths[i], O_RDONLY | O_NONBLOCK);
        if (fd < 0) { printf("%s %s\n", paths[i], strerrorname_np(errno)); continue; }
        long n = read(fd, &byte, 1);
        printf("%s %s\n", paths[i], n < 0 ? strerrorname_np(errno) : n ? "OPEN file" : "empty");
        close(fd);
    }
}
