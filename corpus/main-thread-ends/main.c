// The main thread ends, another goes on: the process lives until that one is done.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void *late(void *arg) { usleep(300000); puts("late thread"); exit(0); return arg; }
int main(void) { pthread_t t; pthread_create(&t, 0, late, 0); pthread_exit(0); }
