/* Network devices that move into a container and back.
   tests/run: as=root,user vm=root */
#include <net/if.h>
#include <ringfence.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failed.h"

static ringfence_container *on_pool(const char *net)
{
    ringfence_spec *spec = ringfence_spec_new();
    ringfence_container *container = NULL;
    if (ringfence_spec_set(spec, "net", net, &err) == 0)
        ringfence_container_start(spec, &container, &err);
    ringfence_spec_free(spec);
    return container;
}

/* Whether it is the error of a start that failed; takes it. */
static int refused(ringfence_container *container, ringfence_kind kind, const char *field)
{
    const char *at = ringfence_error_field(err);
    int is_field = at && !strcmp(at, field);
    return failed(container ? 0 : -1, kind) && is_field;
}

static int has(ringfence_container *container, const char *first, const char *second)
{
    char *json = container ? ringfence_container_addresses_json(container, &err) : NULL;
    int both = json && strstr(json, first) && strstr(json, second);
    ringfence_string_free(json);
    return both;
}

/* Addresses that are one container's each. */
static void pools(void)
{
    const char *net = "{\"bridge\": \"br0\", \"pool\": [\"192.0.2.16-192.0.2.17/24\", \"2001:db8::10-2001:db8::1f/64\"]}";
    if (geteuid() != 0) {
        ok(refused(on_pool(net), RINGFENCE_KIND_PERMISSION_DENIED, "net.pool"), "a pool takes rights");
        return;
    }
    ok(system("ip link add br0 type bridge && ip link set br0 up") == 0, "a bridge");
    ringfence_container *one = on_pool(net), *two = on_pool(net);
    ok(has(one, "\"192.0.2.16\"", "\"2001:db8::10\"") && has(two, "\"192.0.2.17\"", "\"2001:db8::11\""), "two of a pool");
    ok(refused(on_pool(net), RINGFENCE_KIND_EXHAUSTED, "net.pool"), "which has no third");
    ok(refused(on_pool("{\"bridge\": \"br0\", \"addresses\": \"192.0.2.17/24\"}"), RINGFENCE_KIND_ALREADY_EXISTS, "net.addresses[0]"),
       "nor can one be asked for");
    ok(ringfence_container_close(one, 30000, &err) == 0, "the first ends");
    ringfence_container_free(one);
    one = on_pool(net);
    ok(has(one, "\"192.0.2.16\"", "\"2001:db8::10\""), "its addresses are the next one's");
    for (int i = 0; i < 2; i++) {
        ringfence_container_close(i ? one : two, 30000, NULL);
        ringfence_container_free(i ? one : two);
    }
}

int main(void)
{
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_new();
    if (geteuid() == 0 && (unshare(CLONE_NEWNET) < 0 || system("ip link add left type veth peer name right") != 0)) {
        ok(0, "a network namespace with two devices");
        return done();
    }
    if (ringfence_container_start(spec, &container, &err) < 0) {
        ok(0, "start: %s", ringfence_error_message(err));
        return done();
    }
    ok(failed(ringfence_container_attach_device(container, NULL, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "no name");
    ok(failed(ringfence_container_attach_device(NULL, "left", NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "no container");
    ok(failed(ringfence_container_attach_device(container, "nothing", NULL, &err), RINGFENCE_KIND_NOT_FOUND), "no such device");
    if (geteuid() != 0) {
        ok(failed(ringfence_container_attach_device(container, "lo", "lo1", &err), RINGFENCE_KIND_PERMISSION_DENIED), "not root");
    } else {
        ok(ringfence_container_attach_device(container, "left", "eth0", &err) == 0, "attach");
        ok(if_nametoindex("left") == 0, "gone from here");
        ok(failed(ringfence_container_detach_device(container, "left", &err), RINGFENCE_KIND_NOT_FOUND), "not its name inside");
        ok(ringfence_container_detach_device(container, "eth0", &err) == 0, "detach");
        ok(if_nametoindex("left") != 0, "here again");
        ok(ringfence_container_attach_device(container, "left", NULL, &err) == 0, "once more");
        ok(ringfence_container_close(container, 30000, &err) == 0, "close");
        ok(if_nametoindex("left") != 0, "given back");
    }
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    pools();
    return done();
}
