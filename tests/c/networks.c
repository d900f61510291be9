/* Networks of containers.
   tests/run: vm=root */
#include <time.h>
#include <unistd.h>

#include "started.h"

/* Whether a connection comes about. */
static int connects(ringfence_container *from, const char *address, int timeout)
{
    int fd = ringfence_container_connect(from, address, timeout, &err);
    if (fd >= 0)
        close(fd);
    ringfence_error_free(err);
    err = NULL;
    return fd >= 0;
}

/* A neighbour that did not answer is asked again after a second. */
static int reaches(ringfence_container *from, const char *address)
{
    return connects(from, address, 60000);
}

static int is_cut_off(ringfence_container *from, const char *address)
{
    const char *tier = getenv("RINGFENCE_TEST_TIER");
    return !connects(from, address, tier && !strcmp(tier, "vm") ? 1000 : 200);
}

static ringfence_container *on(ringfence_network *network, const char *text)
{
    ringfence_spec *spec = ringfence_spec_from_json(text, &err);
    ringfence_container *container = NULL;
    if (!spec)
        return explain();
    if (ringfence_network_container(network, spec, &container, &err) < 0)
        explain();
    ringfence_spec_free(spec);
    return container;
}

/* Where the kernel has netem, a delay is seen and what is lost does not come. */
static void delay_and_loss(ringfence_network *network, ringfence_container *server, ringfence_container *client, const char *there)
{
    struct timespec began, ended;
    if (ringfence_network_shape(network, server, "{\"delay\": \"60ms\"}", NULL, &err) < 0) {
        if (ringfence_error_kind(err) == RINGFENCE_KIND_UNSUPPORTED)
            skip("delay and loss", ringfence_error_message(err));
        else
            ok(0, "a delay: %s", ringfence_error_message(err));
        ringfence_error_free(err);
        err = NULL;
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &began);
    int reached = reaches(client, there);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = (ended.tv_sec - began.tv_sec) + (ended.tv_nsec - began.tv_nsec) / 1e9;
    ok(reached && seconds >= 0.12, "a delay, there and back: %g s", seconds);
    ok(ringfence_network_shape(network, server, "{\"loss\": 1}", "in", &err) == 0 && is_cut_off(client, there), "all is lost");
    ok(ringfence_network_shape(network, server, "{}", NULL, &err) == 0 && reaches(client, there), "and nothing");
}

int main(void)
{
    ringfence_network *network = NULL, *same = NULL, *none = NULL;
    if (ringfence_network_start("{\"name\": \"c-test\", \"subnets\": \"10.1.2.0/24\"}", &network, &err) < 0) {
        explain();
        ok(0, "start");
        return done();
    }
    ok(!strcmp(ringfence_network_name(network), "c-test") && ringfence_network_is_running(network) == 1, "a network");
    ok(ringfence_network_by_name("c-test", &same, &err) == 0, "by its name");
    ringfence_network_free(same);
    ok(failed(ringfence_network_by_name("other", &none, &err), RINGFENCE_KIND_NOT_FOUND, "name"), "one that is not there");
    ok(failed(ringfence_network_start("{\"name\": \"c-test\"}", &none, &err), RINGFENCE_KIND_ALREADY_EXISTS, "name"), "a name twice");
    ok(failed(ringfence_network_start("{\"subnets\": \"10.0.0.0/31\"}", &none, &err), RINGFENCE_KIND_INVALID_SPEC, "subnets[0]"),
       "a small subnet");

    ok(failed(ringfence_network_start("{\"internal\": \"no\"}", &none, &err), RINGFENCE_KIND_INVALID_SPEC, "internal"), "no way out");

    ringfence_container *server = on(network, "{\"hostname\": \"server\"}");
    ringfence_container *client = on(network, "{\"net\": {\"network\": \"c-test\", \"addresses\": [\"10.1.2.77\"], \"aliases\": [\"cli\"]}}");
    char *json = ringfence_container_addresses_json(client, &err);
    ok(json && strstr(json, "\"10.1.2.77\"") && strstr(json, "\"eth0\""), "its addresses: %s", json ? json : "");
    ringfence_string_free(json);
    json = ringfence_network_info_json(network, &err);
    ok(json && strstr(json, ringfence_container_id(server)) && strstr(json, "\"10.1.2.0/24\"") &&
           strstr(json, "\"way_out\":null"), "what the network is");
    ringfence_string_free(json);

    ok(!on(network, "{\"ports\": [{\"port\": 80, \"nat\": true}]}"), "no port leads into an internal network");
    ringfence_spec *plain = ringfence_spec_new();
    ringfence_container *late = NULL;
    ok(ringfence_container_start(plain, &late, &err) == 0, "a container without a network");
    ringfence_events *events = NULL;
    ok(ringfence_container_events(late, "{\"kinds\": [\"link\"]}", &events, &err) == 0 && ringfence_events_next(events, 0, &err) == 0,
       "nothing has happened");
    json = ringfence_container_attach_net(late, "{\"network\": \"c-test\", \"interface\": \"lan\"}", &err);
    ok(json && strstr(json, "\"lan\""), "joins one: %s", json ? json : ringfence_error_message(err));
    ok(ringfence_events_next(events, 60000, &err) == 1 && ringfence_events_kind(events) == RINGFENCE_EVENT_KIND_LINK, "a device came");
    ringfence_events_free(events);
    ringfence_string_free(json);
    json = ringfence_container_attach_net(late, "network:nowhere", &err);
    ok(failed(json ? 0 : -1, RINGFENCE_KIND_NOT_FOUND, "net"), "that is not there");
    ok(ringfence_container_detach_net(late, "lan", &err) == 0, "and leaves it");
    ok(failed(ringfence_container_detach_net(late, "lan", &err), RINGFENCE_KIND_NOT_FOUND, "interface"), "once");
    ringfence_spec_free(plain);
    ringfence_container_close(late, 60000, NULL);
    ringfence_container_free(late);

    int listener = ringfence_container_listen(server, "0.0.0.0:80", 8, &err);
    const char *there = "10.1.2.2:80";
    ok(listener >= 0 && reaches(client, there), "they reach each other");
    const ringfence_container *one[] = {server}, *other[] = {client};
    ok(ringfence_network_partition(network, one, 1, other, 1, &err) == 0 && is_cut_off(client, there), "a cut");
    ok(ringfence_network_heal(network, &err) == 0 && reaches(client, there), "its end");
    ok(failed(ringfence_network_partition(network, one, 0, other, 1, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "one"), "an empty side");
    ok(failed(ringfence_network_partition(network, NULL, 1, other, 1, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "one"), "NULL");
    ok(failed(ringfence_network_partition(network, one, -1, other, 1, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "one"), "fewer than none");
    ok(failed(ringfence_network_partition(network, one, 1, one, 1, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "other"), "on both sides");
    ok(ringfence_network_set_link(network, server, 0, &err) == 0 && is_cut_off(client, there), "without its link");
    ok(ringfence_network_set_link(network, server, 1, &err) == 0, "with its link");
    ok(ringfence_network_shape(network, server, "{\"rate\": \"10M\"}", "out", &err) == 0 &&
           ringfence_network_shape(network, server, "{}", NULL, &err) == 0,
       "a rate");
    delay_and_loss(network, server, client, there);
    ok(failed(ringfence_network_shape(network, server, "{\"loss\": 7}", NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "loss"), "a share");
    ok(failed(ringfence_network_shape(network, server, "{}", "up", &err), RINGFENCE_KIND_INVALID_ARGUMENT, "direction"), "a direction");
    const char *rules = "{\"incoming\": \"deny\", \"rules\": [{\"direction\": \"in\", \"action\": \"allow\", \"protocol\": \"tcp\", \"ports\": 80, \"peer\": \"cli\"}]}";
    ok(ringfence_network_set_firewall(network, server, "{\"incoming\": \"deny\"}", &err) == 0 && is_cut_off(client, there), "a firewall");
    ok(ringfence_network_set_firewall(network, server, rules, &err) == 0 && reaches(client, there), "a rule");
    json = ringfence_network_firewall_json(network, server, &err);
    ok(json && strstr(json, "\"packets\"") && strstr(json, "\"cli\"") && strstr(json, "\"defaults\""), "its counters: %s", json ? json : "");
    ringfence_string_free(json);
    ok(failed(ringfence_network_set_firewall(network, server, "{\"rules\": [{}]}", &err), RINGFENCE_KIND_INVALID_SPEC, "firewall.rules[0].direction"), "no rule");
    ok(failed(ringfence_network_set_firewall(network, server, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no firewall");
    ok(failed(ringfence_network_heal(NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no network");

    ok(ringfence_network_kill(network, &err) == 0 && ringfence_container_wait(client, 60000, &err) == 1, "all are killed");
    close(listener);
    ringfence_container_free(client);
    ok(ringfence_network_close(network, 60000, &err) == 0 && ringfence_container_is_running(server) == 0, "its containers end with it");
    ok(failed(ringfence_network_heal(network, &err), RINGFENCE_KIND_CLOSED, NULL) && ringfence_network_is_running(network) == 0, "closed");
    ok(ringfence_network_close(network, 0, &err) == 0, "closed again");
    ringfence_container_free(server);
    ringfence_network_free(network);
    ringfence_network_free(NULL);
    return done();
}
