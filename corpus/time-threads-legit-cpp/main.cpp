// Threads of the standard library, in a static program.
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>
int main() {
    std::atomic<long> sum{0};
    std::vector<std::thread> threads;
    for (int i = 1; i <= 8; i++) threads.emplace_back([&sum, i] { for (int k = 0; k < 1000; k++) sum += i; });
    for (auto &t : threads) t.join();
    std::printf("%ld\n", sum.load());
}
