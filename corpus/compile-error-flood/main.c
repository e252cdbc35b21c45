// Tens of thousands of errors.
#define A(x) x x x x x x x x x x
#define B(x) A(A(A(A(x))))
int main(void) { B(undeclared_##__LINE__;) B({ return undeclared(; }) }
