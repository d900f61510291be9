/* Network devices that move into a container and back.
   tests/run: as=root,user vm=root */
#include <net/if.h>
#include <ringfence.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "failed.h"

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
    return done();
}
