// Leaves directories that nobody may enter, with files in them.
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
    int locked = 0;
    for (int i = 0; i < 20; i++) {
        char dir[32], file[64];
        sprintf(dir, "locked%d", i);
        sprintf(file, "%s/file", dir);
        mkdir(dir, 0700);
        close(open(file, O_CREAT | O_WRONLY, 0000));
        locked += chmod(dir, 0000) == 0;
    }
    printf("%d locked, /box too: %s\n", locked, chmod("/box", 0000) ? strerrorname_np(errno) : "yes");
}
