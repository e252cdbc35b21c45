// Reads its input in small sips with pauses.
#include <stdio.h>
#include <unistd.h>
int main(void) { char b[4096]; long n, sum = 0; while ((n = read(0, b, sizeof b)) > 0) { sum += n; usleep(500); } printf("%ld\n", sum); }
