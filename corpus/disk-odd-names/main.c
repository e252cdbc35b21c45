// Leaves names with newlines, escapes, invalid UTF-8, leading dashes and 255 bytes.
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
    char longest[256];
    memset(longest, 'n', 255);
    longest[255] = 0;
    const char *names[] = {"a\nb", "-rf", "--", " ", "\xff\xfe", "\x1b[31m", "*", "$(id)", "..x", "...", "\t", longest};
    int made = 0;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        int fd = open(names[i], O_CREAT | O_WRONLY, 0600);
        if (fd >= 0) { made++; close(fd); }
    }
    printf("%d odd names\n", made);
}
