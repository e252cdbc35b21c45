// What was written before the time was up is kept.
#include <stdio.h>
int main(void) { puts("half of it"); fflush(stdout); for (;;) { } }
