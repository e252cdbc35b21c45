// Prints all 256 byte values.
#include <stdio.h>
int main(void) { fputs("begin\n", stdout); for (int i = 0; i < 256; i++) putchar(i); fputs("\nend\n", stdout); }
