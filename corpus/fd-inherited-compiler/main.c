// Lists the descriptors of the compiler, by way of an include.
#if __has_include("/proc/self/fd/15") || __has_include("/proc/self/fd/16") || __has_include("/proc/self/fd/17") || __has_include("/proc/self/fd/18") || __has_include("/proc/self/fd/19") || __has_include("/proc/self/fd/20")
#error "the compiler has inherited descriptors"
#endif
int main(void) { return 0; }
