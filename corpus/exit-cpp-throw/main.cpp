// An uncaught exception ends in abort().
#include <stdexcept>
int main() { throw std::runtime_error("thrown away"); }
