// Closes its input at once and works on for a while.
#include <stdio.h>
#include <unistd.h>
int main(void) { close(0); usleep(200000); puts("done"); }
