// Is suspended in vfork while its child sleeps.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(void) { if (vfork() == 0) { sleep(30); _exit(0); } puts("parent"); }
