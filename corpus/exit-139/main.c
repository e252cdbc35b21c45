// Exits with 139; what a shell says of SIGSEGV, yet nothing crashed.
#include <stdio.h>
int main(void) { puts("leaving"); return 139; }
