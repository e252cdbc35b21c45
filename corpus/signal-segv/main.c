// Writes through a null pointer.
#include <stdio.h>
int main(void) { puts("before"); fflush(stdout); volatile int *p = 0; *p = 1; }
