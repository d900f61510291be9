/* Devices of containers on those of the host, and a way out: the host is a network namespace of the program's own.
   tests/run: as=root vm=root */
#include <net/if.h>
#include <netdb.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "started.h"

#define PATIENCE 60000

static const char *with_port(char text[100], const char *address, int port)
{
    snprintf(text, 100, strchr(address, ':') ? "[%s]:%d" : "%s:%d", address, port);
    return text;
}

/* A connection from a container, or from this program where that is NULL. */
static int connected(ringfence_container *from, const char *address, int port)
{
    char text[100];
    if (from) {
        int fd = ringfence_container_connect(from, with_port(text, address, port), PATIENCE, &err);
        if (fd < 0)
            explain();
        return fd;
    }
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *to;
    snprintf(text, sizeof text, "%d", port);
    if (getaddrinfo(address, text, &hints, &to) != 0)
        return -1;
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, to->ai_addr, to->ai_addrlen) < 0) {
        note("connect: %m");
        close(fd);
        fd = -1;
    }
    freeaddrinfo(to);
    return fd;
}

/* Whether a byte goes each way, from who asks at an address to the server that listens at one inside. */
static int leads(ringfence_container *from, const char *to, int port, ringfence_container *server, const char *inside, int service)
{
    struct timeval patience = {PATIENCE / 1000, 0};
    char text[100], bytes[3] = "";
    int listener = ringfence_container_listen(server, with_port(text, inside, service), 4, &err);
    if (listener < 0) {
        explain();
        return 0;
    }
    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int client = connected(from, to, port);
    int accepted = client >= 0 ? accept(listener, NULL, NULL) : -1;
    int good = accepted >= 0 && send(client, "?", 1, 0) == 1 && recv(accepted, bytes, 1, 0) == 1 && send(accepted, "!", 1, 0) == 1 &&
               recv(client, bytes + 1, 1, 0) == 1 && !strcmp(bytes, "?!");
    close(accepted);
    close(client);
    close(listener);
    return good;
}

/* A container with that device, and the addresses 192.0.2.N and 2001:db8::N. NULL is told: it fails, or is skipped where the kernel lacks
   the option that the error names. */
static ringfence_container *with(const char *device, int number, const char *option, const char *title)
{
    char net[400];
    int is_routed = !!strstr(device, "routed");
    snprintf(net, sizeof net, "{%s, \"addresses\": [\"192.0.2.%d%s\", \"2001:db8::%d%s\"]}", device, number, is_routed ? "" : "/24", number,
             is_routed ? "" : "/64");
    ringfence_spec *spec = ringfence_spec_new();
    ringfence_container *container = NULL;
    if (ringfence_spec_set(spec, "net", net, &err) < 0 || ringfence_container_start(spec, &container, &err) < 0) {
        if (option && ringfence_error_kind(err) == RINGFENCE_KIND_UNSUPPORTED && strstr(ringfence_error_message(err), option))
            skip(title, ringfence_error_message(err));
        else
            ok(0, "%s: %s", title, ringfence_error_message(err));
        ringfence_error_free(err);
        err = NULL;
    }
    ringfence_spec_free(spec);
    return container;
}

static void end(ringfence_container *container)
{
    if (container && ringfence_container_close(container, PATIENCE, &err) < 0)
        explain();
    ringfence_container_free(container);
}

/* A container is reached by another, or by the host. */
static void reached(const char *title, const char *device, const char *other, const char *option)
{
    ringfence_container *server = with(device, 5, option, title), *client = NULL;
    if (server && (!other || (client = with(other, 6, NULL, title))))
        ok(leads(client, "192.0.2.5", 80, server, "192.0.2.5", 80) && leads(client, "2001:db8::5", 80, server, "2001:db8::5", 80), "%s",
           title);
    end(client);
    end(server);
}

/* By the kernel, out of a network and in by its ports. */
static void way_out(void)
{
    ringfence_network *network = NULL;
    ringfence_container *outside = with("\"device\": \"far\"", 1, NULL, "the outside"), *server = NULL;
    const char *ports = "{\"ports\": [{\"port\": 80, \"host\": \"0.0.0.0\", \"host_port\": 8080, \"nat\": true},"
                        "{\"port\": \"80-82\", \"host\": \"::\", \"host_port\": \"8080-8082\", \"nat\": true}]}";
    ringfence_spec *spec = ringfence_spec_from_json(ports, &err);
    if (!outside || system("ip link set near up && ip route add default via 192.0.2.1 && ip -6 route add default via 2001:db8::1") != 0 ||
        ringfence_network_start("{\"subnets\": [\"10.1.2.0/24\", \"fd00:1::/64\"], \"internal\": false}", &network, &err) < 0 ||
        ringfence_network_container(network, spec, &server, &err) < 0) {
        ok(0, "a network that leads out: %s", ringfence_error_message(err));
    } else {
        char *json = ringfence_network_info_json(network, &err);
        ok(json && strstr(json, "\"way_out\":\"kernel\""), "the way out: %s", json ? json : "");
        ringfence_string_free(json);
        ok(leads(server, "192.0.2.1", 80, outside, "192.0.2.1", 80) && leads(server, "2001:db8::1", 80, outside, "2001:db8::1", 80), "out");
        ok(leads(outside, "192.0.2.254", 8080, server, "10.1.2.2", 80), "in by a port");
        ok(leads(outside, "2001:db8::fe", 8080, server, "fd00:1::2", 80) && leads(outside, "2001:db8::fe", 8082, server, "fd00:1::2", 82),
           "in by a row of ports");
        ok(ringfence_network_close(network, PATIENCE, &err) == 0, "its end");
    }
    ringfence_spec_free(spec);
    ringfence_container_free(server);
    ringfence_network_free(network);
    end(outside);
}

int main(void)
{
    const char *host = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad && ip link set lo up &&"
                       "ip link add near type veth peer name far && ip link set near up && ip link set far up";
    const char *forwards = "ip link set near up && ip link set far up && ip address add 192.0.2.254/24 dev near &&"
                           "ip -6 address add 2001:db8::fe/64 dev near nodad && cd /proc/sys/net && echo 1 > ipv4/ip_forward &&"
                           "echo 1 > ipv6/conf/all/forwarding && echo 1 > ipv6/conf/near/proxy_ndp";
    if (unshare(CLONE_NEWNET) < 0 || system(host) != 0) {
        ok(0, "a network namespace with two devices");
        return done();
    }
    reached("two macvlans", "\"macvlan\": \"near\"", "\"macvlan\": \"near\", \"mode\": \"bridge\"", NULL);
    reached("two ipvlans", "\"ipvlan\": \"near\"", "\"ipvlan\": \"near\"", "CONFIG_IPVLAN");
    reached("a VLAN", "\"vlan\": \"near\", \"id\": 70", "\"vlan\": \"far\", \"id\": 70", "CONFIG_VLAN_8021Q");
    reached("devices of the host", "\"device\": \"near\", \"interface\": \"wan\"", "\"device\": \"far\"", NULL);
    ok(if_nametoindex("near") && if_nametoindex("far"), "they come back");
    ok(system(forwards) == 0, "a host that forwards");
    reached("a routed device", "\"routed\": \"near\"", NULL, NULL);
    reached("a routed device over netkit", "\"routed\": \"near\", \"pair\": \"netkit\"", NULL, "CONFIG_NETKIT");
    way_out();
    return done();
}
