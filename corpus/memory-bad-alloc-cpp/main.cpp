// Asks for 32 TiB at once and gets an exception: no memory was used.
#include <cstdio>
int main() {
    volatile unsigned long size = 1UL << 45;
    char *p = new char[size];
    std::printf("%p\n", (void *)p);
}
