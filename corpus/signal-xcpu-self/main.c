// Sends itself SIGXCPU long before the time limit.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int main(void) { raise(SIGXCPU); puts("still here"); }
