/* Figures of usage by name, and OpenVZ's table. */
#include <inttypes.h>
#include <ringfence.h>
#include <stdlib.h>
#include <string.h>

#include "failed.h"
#include "json.h"
#include "tap.h"

/* UINT64_MAX - 1 when there is none. */
static uint64_t figure(ringfence_container *container, const char *name)
{
    uint64_t value = UINT64_MAX - 1;
    if (ringfence_container_usage_u64(container, name, &value, &err) < 0) {
        note("%s: %s", name, ringfence_error_message(err));
        ringfence_error_free(err);
        err = NULL;
    }
    return value;
}

static void run(ringfence_container *container, const char *script)
{
    ringfence_process *process = NULL;
    ringfence_command *command = ringfence_command_new("sh");
    if (ringfence_command_arg(command, "-c", &err) < 0 || ringfence_command_arg(command, script, &err) < 0 ||
        ringfence_container_spawn(container, command, &process, &err) < 0 || ringfence_process_wait(process, 30000, &err) != 1)
        note("%s: %s", script, ringfence_error_message(err));
    ringfence_process_free(process);
    ringfence_command_free(command);
}

/* The row of a resource. */
static json row(json table, const char *resource)
{
    size_t position = 0;
    for (json item; (item = json_next(table, &position)).at;) {
        char *name = json_text(json_get(item, "resource"));
        int found = name && !strcmp(name, resource);
        free(name);
        if (found)
            return item;
    }
    json none = {NULL, 0};
    return none;
}

static int holds(json object, const char *key, const char *wanted)
{
    char *seen = json_text(json_get(object, key));
    int good = seen && !strcmp(seen, wanted);
    if (!good)
        note("%s: wanted %s, seen %s", key, wanted, seen ? seen : "nothing");
    free(seen);
    return good;
}

static uint64_t failures(ringfence_container *container, const char *resource)
{
    char *text = ringfence_container_beancounters_json(container, &err);
    json table = {text, text ? strlen(text) : 0};
    char *seen = json_text(json_get(row(table, resource), "failcnt"));
    uint64_t count = seen ? strtoull(seen, NULL, 10) : UINT64_MAX - 1;
    note("%s: %s", resource, seen ? seen : "nothing");
    free(seen);
    ringfence_string_free(text);
    return count;
}

static void failures_are_counted(void)
{
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"memory\": \"40M\", \"swap\": 0, \"pids\": 8}", &err);
    if (!ok(ringfence_container_start(spec, &container, &err) == 0, "a container with little"))
        note("%s", ringfence_error_message(err));
    ok(failures(container, "numproc") == 0 && failures(container, "oomguarpages") == 0, "no failures yet");
    run(container, "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1 & done; wait");
    uint64_t refused = failures(container, "numproc");
    ok(refused >= 1 && refused == figure(container, "pids_refused"), "refused forks");
    /* Those that were forked may be there still. */
    ok(ringfence_container_update(container, "{\"pids\": null}", &err) == 0, "no limit of them any more");
    run(container, "tail /dev/zero > /dev/null");
    uint64_t met = failures(container, "physpages");
    ok(met >= 1 && met < UINT64_MAX - 1, "the limit of memory was met");
    ok(failures(container, "oomguarpages") == 1, "a process was killed for it");
    ringfence_container_free(container);
    ringfence_spec_free(spec);
}

int main(void)
{
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"memory\": \"128M\", \"pids\": 40}", &err);
    if (ringfence_container_start(spec, &container, &err) < 0) {
        int kind = ringfence_error_kind(err);
        if (kind != RINGFENCE_KIND_UNSUPPORTED && kind != RINGFENCE_KIND_PERMISSION_DENIED)
            ok(0, "start: %s", ringfence_error_message(err));
        else
            skip("usage", ringfence_error_message(err));
        ringfence_error_free(err);
        ringfence_spec_free(spec);
        return done();
    }
    uint64_t value = 7;
    run(container, "head -c 8000000 /dev/zero > /dev/shm/f");
    ok(figure(container, "memory_max") == 128 << 20, "a limit");
    ok(figure(container, "memory_shmem") > 7000000 && figure(container, "memory_shmem") < 9500000, "memory by kind");
    ok(figure(container, "net.lo.rx_bytes") < 100000, "a network device");
    ok(figure(container, "pressure.cpu.some.total_usec") < UINT64_MAX - 1, "pressure");
    ok(failed(ringfence_container_usage_u64(container, "net.no-such.rx_bytes", &value, &err), RINGFENCE_KIND_UNSUPPORTED) && value == 7,
       "a device that is not there");
    ok(failed(ringfence_container_usage_u64(container, "net.lo.rx_butes", &value, &err), RINGFENCE_KIND_INVALID_ARGUMENT) && value == 7,
       "a name that is none");
    char *text = ringfence_container_usage_json(container, &err);
    json usage = {text, text ? strlen(text) : 0};
    ok(json_get(json_get(json_get(usage, "net"), "lo"), "rx_bytes").at != NULL, "the same as JSON");
    ringfence_string_free(text);

    text = ringfence_container_beancounters_json(container, &err);
    json table = {text, text ? strlen(text) : 0};
    json tasks = row(table, "numproc"), memory = row(table, "physpages"), none = row(table, "numiptent");
    ok(holds(tasks, "limit", "40") && holds(tasks, "unit", "items") && holds(tasks, "failcnt", "0"), "numproc");
    ok(holds(memory, "unit", "pages") && json_get(memory, "held").at, "physpages");
    ok(holds(none, "held", "null") && json_get(none, "source").length > 10, "one that is not counted says so");
    ringfence_string_free(text);
    ok(ringfence_container_beancounters_json(NULL, NULL) == NULL, "NULL is an error");
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    failures_are_counted();
    return done();
}
