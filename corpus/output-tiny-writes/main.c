// Prints 16 MiB one byte at a time.
#include <unistd.h>
int main(void) { for (int i = 0; i < 1 << 24; i++) if (write(1, "x", 1) < 0) return 1; return 0; }
