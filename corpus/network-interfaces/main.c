// Looks for interfaces other than the loopback.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0), other = 0;
    for (int i = 1; i < 1000; i++) {
        struct ifreq r = {.ifr_ifindex = i};
        if (ioctl(s, SIOCGIFNAME, &r) == 0 && strcmp(r.ifr_name, "lo")) { ioctl(s, SIOCGIFFLAGS, &r); if (r.ifr_flags & IFF_UP) { printf("UP %s\n", r.ifr_name); other++; } }
    }
    printf("%d other interfaces\n", other);
}
