/* Ports of a container at ports of this machine.
   tests/run: vm=root */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <ringfence.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "failed.h"

static int reach(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {60, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int main(void)
{
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_new();
    ok(ringfence_spec_set(spec, "ports", "5432", &err) == 0 && ringfence_spec_set(spec, "ports", "53/udp", &err) == 0, "text");
    ok(failed(ringfence_spec_set(spec, "ports", "80/sctp", &err), RINGFENCE_KIND_INVALID_SPEC), "no protocol");
    if (ringfence_container_start(spec, &container, &err) < 0) {
        ok(0, "start: %s", ringfence_error_message(err));
        return done();
    }
    int port = ringfence_container_port(container, 5432, &err);
    ok(port > 0, "the host's port");
    ok(ringfence_container_port(container, 53, &err) > 0, "and that of UDP");
    char *json = ringfence_container_ports_json(container, &err);
    char wanted[128];
    snprintf(wanted, sizeof wanted, "\"host_port\":%d", port);
    ok(json && strstr(json, wanted) && strstr(json, "\"protocol\":\"udp\""), "all: %s", json ? json : "");
    ringfence_string_free(json);
    ok(failed(ringfence_container_port(container, 80, &err), RINGFENCE_KIND_NOT_FOUND), "one that is not published");
    ok(failed(ringfence_container_port(container, 70000, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "no port");
    ok(failed(ringfence_container_port(NULL, 80, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "NULL");

    char text[8] = "";
    int client = reach(port);
    /* The reset may come while this still connects. */
    ok((client < 0 || recv(client, text, 1, 0) < 0) && errno == ECONNRESET, "nobody listens inside yet");
    close(client);
    int server = ringfence_container_listen(container, "127.0.0.1:5432", 4, &err);
    client = reach(port);
    int peer = server >= 0 && client >= 0 ? accept(server, NULL, NULL) : -1;
    ok(peer >= 0 && send(client, "hello", 5, 0) == 5 && recv(peer, text, 5, MSG_WAITALL) == 5 && !strcmp(text, "hello"),
       "into the container");
    ok(send(peer, "world", 5, 0) == 5 && recv(client, text, 5, MSG_WAITALL) == 5 && !strcmp(text, "world"), "and back");
    shutdown(client, SHUT_WR);
    ok(recv(peer, text, 1, 0) == 0, "the end of one direction");
    close(peer);
    ok(recv(client, text, 1, 0) == 0, "and of the other");
    close(client);
    close(server);

    char taken[64];
    snprintf(taken, sizeof taken, "{\"ports\": [\"%d:80\"]}", port);
    ringfence_spec *other = ringfence_spec_from_json(taken, &err);
    ringfence_container *none = NULL;
    int result = ringfence_container_start(other, &none, &err);
    ok(result == -1 && ringfence_error_errno(err) == EADDRINUSE && !strcmp(ringfence_error_field(err), "ports[0]") && !none,
       "a port that is taken: %s", ringfence_error_message(err));
    ringfence_error_free(err);
    err = NULL;
    ringfence_spec_free(other);

    ok(ringfence_container_close(container, 30000, &err) == 0, "close");
    ok(reach(port) < 0 && errno == ECONNREFUSED, "nobody is there any more");
    ok(failed(ringfence_container_port(container, 5432, &err), RINGFENCE_KIND_CLOSED), "a closed container");
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    return done();
}
