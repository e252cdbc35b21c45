// The flood comes from a grandchild.
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) { static char b[65536]; memset(b, 'x', sizeof b); if (fork() == 0) { setsid(); if (fork() == 0) for (int i = 0; i < 1600; i++) if (write(1, b, sizeof b) < 0) _exit(1); wait(0); _exit(0); } wait(0); sleep(3); return 0; }
