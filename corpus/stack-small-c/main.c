// The same depth with a stack limit of 8 MiB.
#include <stdio.h>
static long depth(long n) {
    volatile char frame[64];
    frame[n % sizeof frame] = 1;
    return n == 0 ? 0 : depth(n - 1) + frame[n % sizeof frame];
}
int main(void) { printf("%ld\n", depth(400000)); }
