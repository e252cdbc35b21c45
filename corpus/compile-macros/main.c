// Macros that expand to a billion tokens.
#define A(x) x x x x x x x x x x
#define B(x) A(A(A(x)))
#define C(x) B(B(B(x)))
int main(void) { int n = 0; C(n++;) return n; }
