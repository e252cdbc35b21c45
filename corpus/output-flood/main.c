// Prints 100 MiB.
#include <string.h>
#include <unistd.h>
int main(void) { static char b[65536]; memset(b, 'x', sizeof b); for (int i = 0; i < 1600; i++) if (write(1, b, sizeof b) < 0) return 1; return 0; }
