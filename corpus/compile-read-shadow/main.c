// Includes the password file: the error message must not quote it.
#include </etc/shadow>
int main(void) { return 0; }
