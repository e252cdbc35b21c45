// Exits with 137; what a shell says of SIGKILL, yet nobody was killed.
#include <stdio.h>
int main(void) { puts("leaving"); return 137; }
