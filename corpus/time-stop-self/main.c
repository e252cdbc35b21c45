// Stops itself with SIGSTOP and is never continued.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(void) { raise(SIGSTOP); puts("continued"); }
