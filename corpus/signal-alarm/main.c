// Dies of its own alarm clock.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int main(void) { ualarm(100000, 0); pause(); puts("still here"); }
