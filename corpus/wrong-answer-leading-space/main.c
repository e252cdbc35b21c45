// Leading white space counts.
#include <stdio.h>
int main(void) { printf(" 7\n"); }
