// A missing semicolon.
int main(void) { return 0 }
