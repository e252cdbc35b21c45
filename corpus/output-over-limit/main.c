// Prints one byte more than is allowed.
#include <stdio.h>
int main(void) { for (int i = 0; i < 65536; i++) putchar('x'); putchar('\n'); }
