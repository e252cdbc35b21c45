// A loop at compile time that has no end.
constexpr int spin() { int n = 0; while (true) n ^= 1; return n; }
static_assert(spin() == 0, "");
int main() { }
