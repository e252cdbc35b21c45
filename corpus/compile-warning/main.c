// A warning is not an error.
#include <stdio.h>
#warning "be careful"
int main(void) { puts("fine"); }
