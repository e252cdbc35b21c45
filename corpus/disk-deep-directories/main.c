// Nests 2,500 directories, too deep for any path name, and leaves them.
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

int main(void) {
    int n = 0;
    while (n < 2500 && mkdir("deeper", 0700) == 0 && chdir("deeper") == 0) n++;
    printf("%d deep%s%s\n", n, n < 2500 ? " " : "", n < 2500 ? strerrorname_np(errno) : "");
    int fd = open("bottom", O_CREAT | O_WRONLY, 0600);
    printf("file at the bottom: %s\n", fd < 0 ? strerrorname_np(errno) : "yes");
}
