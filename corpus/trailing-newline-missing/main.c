// The last newline is missing.
#include <stdio.h>
int main(void) { printf("7"); }
