// Prints exactly as much as is allowed: 64 KiB.
#include <stdio.h>
int main(void) { for (int i = 0; i < 65535; i++) putchar('x'); putchar('\n'); }
