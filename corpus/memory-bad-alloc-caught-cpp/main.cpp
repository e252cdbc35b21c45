// Catches the exception and goes on.
#include <cstdio>
#include <new>
int main() {
    volatile unsigned long size = 1UL << 45;
    try { std::printf("%p\n", (void *)new char[size]); }
    catch (const std::bad_alloc &) { std::puts("caught"); }
}
