// A child keeps stdout and stderr open for a minute after the main process has ended.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(void) { if (fork() == 0) { sleep(60); _exit(0); } puts("main is done"); }
