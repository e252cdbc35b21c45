// Leaves links that point out of the box, loops, pipes and sockets.
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

#include <sys/socket.h>
#include <sys/un.h>
int main(void) {
    printf("symlink %s\n", symlink("/etc/shadow", "output.txt") ? strerrorname_np(errno) : "made");
    printf("loop %s\n", symlink("loop", "loop") ? strerrorname_np(errno) : "made");
    printf("up %s\n", symlink("../../../../../../..", "up") ? strerrorname_np(errno) : "made");
    printf("fifo %s\n", mkfifo("fifo", 0600) ? strerrorname_np(errno) : "made");
    struct sockaddr_un a = {AF_UNIX, "socket"};
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    printf("socket %s\n", bind(s, (struct sockaddr *)&a, sizeof a) ? strerrorname_np(errno) : "made");
    printf("hard link to /bin/sh %s\n", link("/bin/sh", "sh") ? strerrorname_np(errno) : "MADE");
    printf("device %s\n", mknod("disk", S_IFBLK | 0600, 0x800) ? strerrorname_np(errno) : "MADE");
    printf("mem %s\n", mknod("mem", S_IFCHR | 0600, 0x101) ? strerrorname_np(errno) : "MADE");
}
