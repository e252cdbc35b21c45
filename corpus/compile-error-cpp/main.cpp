// A type error.
#include <string>
int main() { std::string s = 1.5 + "x"; }
