// Exits with 3; an ordinary failure.
#include <stdio.h>
int main(void) { puts("leaving"); return 3; }
