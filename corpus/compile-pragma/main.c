// Asks the compiler to load a plugin and to write elsewhere.
#pragma GCC diagnostic error "-fplugin=./evil.so"
#pragma GCC optimize("-fplugin=./evil.so")
#pragma GCC dependency "/etc/shadow"
int main(void) { return 0; }
