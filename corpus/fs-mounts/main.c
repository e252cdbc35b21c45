// Looks at its mounts: none with setuid programs.
#include <stdio.h>
#include <string.h>
int main(void) {
    char line[4096];
    int n = 0;
    FILE *f = fopen("/proc/self/mounts", "r");
    if (!f) { perror("mounts"); return 1; }
    while (fgets(line, sizeof line, f)) {
        n++;
        if (strstr(line, " /dev/") && !strstr(line, " /dev/shm ")) continue; /* the device nodes */
        if (!strstr(line, "nosuid")) printf("SUID ALLOWED: %s", line);
        if (strstr(line, "cgroup")) printf("CGROUP: %s", line);
    }
    printf("%s\n", n ? "looked at all mounts" : "no mounts");
}
