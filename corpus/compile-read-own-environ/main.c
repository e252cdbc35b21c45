// Prints the environment of its compiler: nothing of the server in it.
#include <stdio.h>
__asm__(".data\n.globl stolen\nstolen: .incbin \"/proc/self/environ\"\nstolen_end: .byte 0\n.text");
extern char stolen[], stolen_end[];
int main(void) { for (char *p = stolen; p < stolen_end; p++) putchar(*p ? *p : '\n'); }
