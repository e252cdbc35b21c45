// 50 MiB of input that nobody reads.
#include <stdio.h>
int main(void) { puts("not interested"); }
