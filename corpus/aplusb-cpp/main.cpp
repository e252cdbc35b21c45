// Adds two numbers: the job that everybody sends first.
#include <iostream>

int main() {
    long a, b;
    std::cin >> a >> b;
    std::cout << a + b << '\n';
}
