/* Sockets and files of a container for the program. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <ringfence.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tap.h"

static ringfence_error *err;

static int failed(int result, int number, const char *field)
{
    int good = result == -1 && ringfence_error_errno(err) == number && ringfence_error_field(err) &&
               !strcmp(ringfence_error_field(err), field);
    if (!good)
        note("result %d: %s", result, ringfence_error_message(err));
    ringfence_error_free(err);
    err = NULL;
    return good;
}

static int talk(ringfence_container *container, const char *address)
{
    char text[8] = "";
    int server = ringfence_container_listen(container, address, 4, &err);
    int client = ringfence_container_connect(container, address, 60000, &err);
    if (server < 0 || client < 0) {
        note("%s: %s", address, ringfence_error_message(err));
        return 0;
    }
    int peer = accept(server, NULL, NULL);
    int good = write(client, "hello", 5) == 5 && read(peer, text, sizeof text) == 5 && !strcmp(text, "hello") &&
               (fcntl(client, F_GETFD) & FD_CLOEXEC) && !(fcntl(client, F_GETFL) & O_NONBLOCK);
    close(peer);
    close(client);
    close(server);
    return good;
}

int main(void)
{
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"files\": {\"/etc/ringfence-reach\": \"within\"}}", &err);
    if (ringfence_container_start(spec, &container, &err) < 0) {
        ok(0, "start: %s", ringfence_error_message(err));
        return done();
    }
    ok(talk(container, "127.0.0.1:80"), "a port below 1024");
    ok(talk(container, "/tmp/reach.sock"), "a path");
    ok(talk(container, "@reach"), "an abstract name");
    ok(failed(ringfence_container_connect(container, "127.0.0.1:81", 60000, &err), ECONNREFUSED, "address"), "nobody there");
    ok(ringfence_container_listen(container, "nonsense", 4, &err) == -1 && ringfence_error_kind(err) == RINGFENCE_KIND_INVALID_ARGUMENT,
       "no address");
    ringfence_error_free(err);
    err = NULL;
    ok(failed(ringfence_container_socket(container, 12345, SOCK_STREAM, 0, &err), EAFNOSUPPORT, "domain"), "no family");
    int packets = ringfence_container_socket(container, AF_PACKET, SOCK_RAW, 0, &err);
    int family = 0;
    socklen_t size = sizeof family;
    ok(packets >= 0 && getsockopt(packets, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 && family == AF_PACKET, "a packet socket");
    close(packets);
    char text[8] = "";
    int file = ringfence_container_open_path(container, "/etc/ringfence-reach", O_RDONLY, 0, &err);
    ok(file >= 0 && read(file, text, sizeof text) == 6 && !strcmp(text, "within"), "a file of the container");
    close(file);
    ok(failed(ringfence_container_open_path(container, "/nonsense", O_RDONLY, 0, &err), ENOENT, "path"), "no such file");
    ok(ringfence_container_close(container, 30000, &err) == 0, "close");
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    return done();
}
