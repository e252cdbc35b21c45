// The devices that are there work.
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
    char b[16] = "x";
    int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY), full = open("/dev/full", O_WRONLY);
    printf("null %ld %ld\n", (long)write(null, b, 16), (long)read(null, b, 16));
    printf("zero %ld %d\n", (long)read(zero, b, 16), b[15]);
    printf("full %s\n", write(full, b, 1) < 0 ? strerrorname_np(errno) : "accepted");
    printf("random %ld %ld\n", (long)read(open("/dev/random", O_RDONLY), b, 16), (long)read(open("/dev/urandom", O_RDONLY), b, 16));
    fflush(stdout);
    FILE *out = fopen("/dev/stdout", "w");
    if (out) fputs("stdout by name\n", out); else printf("/dev/stdout %s\n", strerrorname_np(errno));
}
