// Grows a vector to 2 GiB.
#include <cstdio>
#include <vector>
int main() {
    std::vector<std::vector<char>> all;
    for (int i = 0; i < 2048; i++) all.emplace_back(1 << 20, (char)i);
    std::puts("had 2 GiB");
}
