// A template that needs itself without end.
template <int n> struct T { static constexpr int value = T<n + 1>::value; };
int main() { return T<0>::value; }
