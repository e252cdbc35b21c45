// Divides by zero.
int main(int argc, char **argv) { (void)argv; volatile int zero = argc - argc; return 100 / zero; }
