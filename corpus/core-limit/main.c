// Prints its core limit, tries to raise and to lower it, and crashes.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static void set(const char *what, rlim_t value) {
    struct rlimit limit = {value, value};
    printf("%s %s\n", what, setrlimit(RLIMIT_CORE, &limit) ? strerrorname_np(errno) : "ALLOWED");
}

int main(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_CORE, &limit);
    printf("core %lu %lu\n", limit.rlim_cur, limit.rlim_max);
    set("raise", 1 << 20);
    set("lower", 0);
    fflush(stdout);
    abort();
}
