// A billion words of assembly from one line.
__asm__(".data\n.rept 1000000000\n.quad 1\n.endr\n.text");
int main(void) { return 0; }
