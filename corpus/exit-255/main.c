// Exits with 255; an ordinary failure.
#include <stdio.h>
int main(void) { puts("leaving"); return 255; }
