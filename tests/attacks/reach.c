/*
 *     reach SOCKET FIFO DEVICE
 *
 * Connects, writes, opens: what each came to.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void said(const char *what, int result)
{
    printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "reached");
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
    int socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    said("socket", connect(socket_fd, (void *)&address, sizeof address));
    int fifo = open(argv[2], O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    said("fifo", fifo < 0 ? fifo : (int)write(fifo, "reached", 7));
    said("device", open(argv[3], O_RDWR | O_NONBLOCK | O_CLOEXEC));
    /* By a way around: a name of its own for the same file. */
    said("link", link(argv[1], "/tmp/socket"));
    return 0;
}
