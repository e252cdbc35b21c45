// Floods both streams and ignores SIGPIPE and every error.
#include <signal.h>
#include <string.h>
#include <unistd.h>
int main(void) { static char b[4096]; signal(SIGPIPE, SIG_IGN); memset(b, 'x', sizeof b); for (int i = 0; i < 1 << 20; i++) { if (write(1, b, sizeof b) < 0) usleep(100); if (write(2, b, sizeof b) < 0) usleep(100); } return 0; }
