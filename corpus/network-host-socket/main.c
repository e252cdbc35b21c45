// Looks for abstract Unix sockets of the host.
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
    const char *names[] = {"/tmp/.X11-unix/X0", "/run/dbus/system_bus_socket", "/containerd-shim/default", "gavel", "dbus"};
    for (int i = 0; i < 5; i++) {
        struct sockaddr_un a = {AF_UNIX, ""};
        strcpy(a.sun_path + 1, names[i]);
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        printf("%s %s\n", names[i], connect(s, (void *)&a, 3 + strlen(names[i])) ? strerrorname_np(errno) : "CONNECTED");
    }
    const char *paths[] = {"/run/docker.sock", "/var/run/docker.sock", "/run/postgresql/.s.PGSQL.5432", "/run/systemd/private", "/dev/log"};
    for (int i = 0; i < 5; i++) {
        struct sockaddr_un a = {AF_UNIX, ""};
        strcpy(a.sun_path, paths[i]);
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        printf("%s %s\n", paths[i], connect(s, (void *)&a, sizeof a) ? strerrorname_np(errno) : "CONNECTED");
    }
}
