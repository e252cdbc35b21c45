// No input: end of file at once, no hang.
#include <stdio.h>
int main(void) { printf("%d\n", getchar()); }
