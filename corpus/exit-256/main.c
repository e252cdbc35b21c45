// Exits with 256, of which the kernel keeps 0.
#include <stdlib.h>
int main(void) { exit(256); }
