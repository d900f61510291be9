/* Limits that change while a container runs. */
#include <errno.h>
#include <ringfence.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "tap.h"

static ringfence_error *err;

static int failed(int result, ringfence_kind kind, const char *field)
{
    const char *seen = ringfence_error_field(err);
    int good = result == -1 && ringfence_error_kind(err) == kind && (!field || (seen && !strcmp(seen, field)));
    if (!good)
        note("result %d: %s (%s)", result, ringfence_error_message(err), ringfence_error_kind_name(err));
    ringfence_error_free(err);
    err = NULL;
    return good;
}

static uint64_t figure(ringfence_container *container, const char *name)
{
    uint64_t value = 0;
    if (ringfence_container_usage_u64(container, name, &value, &err) < 0) {
        note("%s: %s", name, ringfence_error_message(err));
        ringfence_error_free(err);
        err = NULL;
    }
    return value;
}

int main(void)
{
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"memory\": \"64M\", \"pids\": 32}", &err);
    int kind;

    if (ringfence_container_start(spec, &container, &err) < 0) {
        kind = ringfence_error_kind(err);
        if (kind != RINGFENCE_KIND_UNSUPPORTED && kind != RINGFENCE_KIND_PERMISSION_DENIED)
            ok(0, "start: %s", ringfence_error_message(err));
        else
            skip("update", ringfence_error_message(err));
        ringfence_error_free(err);
        ringfence_spec_free(spec);
        return done();
    }
    ok(ringfence_container_update(container, "{\"memory\": \"128M\", \"pids\": null}", &err) == 0, "update");
    ok(figure(container, "memory_max") == 128 << 20, "a new limit");
    ok(figure(container, "pids_max") == UINT64_MAX, "no limit any more");
    char *now = ringfence_container_spec_json(container, &err);
    ok(now && !strcmp(now, "{\"memory\":134217728}"), "the spec as it is now: %s", now ? now : "NULL");
    ringfence_string_free(now);

    ok(failed(ringfence_container_update(container, "{\"memory\": \"32M\", \"hostname\": \"x\"}", &err), RINGFENCE_KIND_INVALID_SPEC,
              "hostname"),
       "a field that is fixed");
    ok(figure(container, "memory_max") == 128 << 20, "a refused update changes nothing");
    ok(failed(ringfence_container_update(container, "{", &err), RINGFENCE_KIND_INVALID_SPEC, NULL), "no JSON");
    ok(failed(ringfence_container_update(container, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "NULL");
    ok(failed(ringfence_container_update(NULL, "{}", &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no container");
    ok(ringfence_container_update(container, "{}", NULL) == 0, "nothing to change, nowhere to put an error");

    int reclaimed = ringfence_container_reclaim(container, 1ull << 40, &err);
    if (reclaimed < 0)
        ok(failed(reclaimed, RINGFENCE_KIND_UNSUPPORTED, NULL), "v1 cannot reclaim");
    else
        ok(reclaimed == 0, "less than a terabyte is reclaimed");

    ok(ringfence_container_close(container, -1, &err) == 0, "close");
    ok(failed(ringfence_container_update(container, "{\"pids\": 1}", &err), RINGFENCE_KIND_CLOSED, NULL), "a closed container");
    now = ringfence_container_spec_json(container, NULL);
    ok(now != NULL, "its spec can still be read");
    ringfence_string_free(now);
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    return done();
}
