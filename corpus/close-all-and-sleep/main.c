// Closes all three standard streams and sleeps for a while.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(void) { close(0); close(1); close(2); usleep(300000); return 0; }
