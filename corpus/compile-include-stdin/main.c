// Includes its standard input, which is empty for a compiler.
#include "/dev/stdin"
#include <stdio.h>
int main(void) { puts("nothing came"); }
