// Sends itself SIGXFSZ without writing a byte.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int main(void) { raise(SIGXFSZ); puts("still here"); }
