// Lets a child crash and looks for the core file.
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
int main(void) {
    int status = 0;
    if (fork() == 0) abort();
    wait(&status);
    printf("dumped: %d\n", WCOREDUMP(status) != 0);
    struct dirent *e;
    for (DIR *d = opendir("."); d && (e = readdir(d));) if (strstr(e->d_name, "core")) printf("FOUND %s\n", e->d_name);
}
