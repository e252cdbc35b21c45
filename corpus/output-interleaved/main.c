// Writes to both streams; neither is lost and neither waits for the other.
#include <stdio.h>
int main(void) { for (int i = 0; i < 5000; i++) { fprintf(stdout, "out %d\n", i); fprintf(stderr, "err %d\n", i); } }
