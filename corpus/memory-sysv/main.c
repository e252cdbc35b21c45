// Touches up to 2 GiB of System V shared memory.
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
#include <sys/ipc.h>
#include <sys/shm.h>
#define MB (1 << 20)

int main(void) {
    for (int i = 0; i < 256; i++) {
        int id = shmget(IPC_PRIVATE, 8 * MB, IPC_CREAT | 0600);
        char *p = id < 0 ? (char *)-1 : shmat(id, 0, 0);
        if (p == (char *)-1) { printf("shm: %s\n", strerrorname_np(errno)); return 1; }
        memset(p, 1, 8 * MB);
    }
    puts("had 2 GiB");
}
