// Replaces its own program: the next run of the same source must get the genuine one.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "poison")) {
        int fd = open("/box/main", O_WRONLY | O_TRUNC);
        printf("overwrite: %s\n", fd < 0 ? "refused" : "done");
        printf("remove: %s\n", unlink("/box/main") ? "refused" : "done");
        fd = open("/box/main", O_CREAT | O_WRONLY, 0777);
        if (fd >= 0 && write(fd, "#!/bin/sh\necho POISONED\n", 24) != 24) return 1;
        puts("tried");
        return 0;
    }
    puts("genuine");
}
