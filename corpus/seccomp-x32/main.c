// Calls the kernel by the numbers of the x32 interface.
#include <stdio.h>
#include <unistd.h>
int main(void) {
    puts("with bit 30 set");
    fflush(stdout);
    long r = syscall(0x40000000 + 39);
    printf("the kernel answered %ld\n", r);
}
