// Looks for processes that are not its own.
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
    struct dirent *e;
    int others = 0;
    DIR *d = opendir("/proc");
    if (!d) { perror("/proc"); return 1; }
    while ((e = readdir(d)))
        if (isdigit((unsigned char)e->d_name[0]) && atoi(e->d_name) != 1 && atoi(e->d_name) != getpid()) { printf("SEEN %s\n", e->d_name); others++; }
    for (int pid = 2; pid < 70000; pid++) {
        char path[32];
        struct stat st;
        sprintf(path, "/proc/%d", pid);
        if (pid != getpid() && stat(path, &st) == 0) { printf("FOUND %d\n", pid); others++; }
    }
    printf("%d others\n", others);
}
