// Writes to a pipe that nobody reads: SIGPIPE must have its default effect.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int main(void) { int p[2]; if (pipe(p)) return 1; close(p[0]); if (write(p[1], "x", 1) < 0) puts("SIGPIPE is ignored"); return 0; }
