// Waits for input that never comes, from a pipe of its own.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(void) { int p[2]; char c; if (pipe(p)) return 1; return (int)read(p[0], &c, 1); }
