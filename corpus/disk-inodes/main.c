// Creates 60,000 empty files in each writable place.
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
    const char *places[] = {"/box", "/tmp", "/dev/shm"};
    for (int k = 0; k < 3; k++) {
        int i = 0;
        for (; i < 60000; i++) {
            char name[64];
            sprintf(name, "%s/i%d", places[k], i);
            int fd = open(name, O_CREAT | O_WRONLY, 0600);
            if (fd < 0) break;
            close(fd);
        }
        printf("%s %s\n", places[k], i < 60000 ? strerrorname_np(errno) : "NO LIMIT");
    }
}
