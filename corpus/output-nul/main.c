// Prints NUL bytes.
#include <stdio.h>
int main(void) { fwrite("a\0b\0\n", 1, 5, stdout); }
