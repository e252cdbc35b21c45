// Calls the kernel by the 32-bit gate, whose numbers mean other calls.
#include <stdio.h>
int main(void) {
    long r = 20; /* getpid there */
    puts("through int 0x80");
    fflush(stdout);
    __asm__ volatile("int $0x80" : "+a"(r) : : "memory", "r8", "r9", "r10", "r11");
    printf("the gate answered %ld\n", r);
}
