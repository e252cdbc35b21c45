// Exits with 1; an ordinary failure.
#include <stdio.h>
int main(void) { puts("leaving"); return 1; }
