// Opens sockets of every family and every raw type.
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
    int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET};
    for (int family = 0; family < 64; family++) {
        int opened = 0, e = 0;
        for (int k = 0; k < 4; k++) {
            int s = socket(family, types[k], 0);
            if (s >= 0) { opened++; close(s); } else if (!k) e = errno;
        }
        if (family == AF_UNIX || family == AF_INET || family == AF_INET6) continue;
        printf("family %d %s\n", family, opened ? "OPENED" : strerrorname_np(e));
    }
    for (int protocol = 0; protocol < 4; protocol++) {
        int s = socket(AF_INET, SOCK_RAW, protocol), t = socket(AF_INET6, SOCK_RAW, protocol), u = socket(AF_INET, SOCK_PACKET, protocol);
        printf("raw %d %s\n", protocol, s >= 0 || t >= 0 || u >= 0 ? "OPENED" : strerrorname_np(errno));
    }
    int p[2];
    printf("pair %s\n", socketpair(16, SOCK_DGRAM, 0, p) ? strerrorname_np(errno) : "OPENED");
}
