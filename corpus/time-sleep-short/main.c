// Sleeps within its time: CPU limit 300 ms, asleep for 500.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(void) { usleep(500000); puts("woke up"); }
