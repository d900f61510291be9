/* Groups of processes inside a container. */
#include <errno.h>
#include <ringfence.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failed.h"
#include "json.h"

static int holds(char *text, const char *key, const char *wanted)
{
    json whole = {text, text ? strlen(text) : 0};
    char *seen = text ? json_text(json_get(whole, key)) : NULL;
    int good = seen && !strcmp(seen, wanted);
    if (!good)
        note("%s: wanted %s, seen %s", key, wanted, seen ? seen : "nothing");
    free(seen);
    ringfence_string_free(text);
    return good;
}

/* Runs a program in the group to its end. */
static ringfence_process *start(ringfence_container *container, const char *group, const char *program, const char *argument)
{
    ringfence_process *process = NULL;
    ringfence_command *command = ringfence_command_new(program);
    if (ringfence_command_arg(command, argument, &err) < 0 || ringfence_command_set(command, "cgroup", group, &err) < 0 ||
        ringfence_command_set(command, "stdout", "null", &err) < 0 || ringfence_container_spawn(container, command, &process, &err) < 0)
        note("%s", ringfence_error_message(err));
    ringfence_command_free(command);
    return process;
}

static uint64_t used(ringfence_container *container, const char *group)
{
    char *text = ringfence_container_group_usage_json(container, group, &err);
    json usage = {text, text ? strlen(text) : 0};
    char *microseconds = json_text(json_get(usage, "cpu_usage_usec"));
    uint64_t result = microseconds ? strtoull(microseconds, NULL, 10) : 0;
    free(microseconds);
    ringfence_string_free(text);
    return result;
}

/* Waits until both together have used so many microseconds more. */
static void until_used(ringfence_container *container, uint64_t more, uint64_t result[2])
{
    uint64_t end = 0;
    for (int i = 0; i < 2400; i++) {
        result[0] = used(container, "one"), result[1] = used(container, "three");
        if (!end)
            end = result[0] + result[1] + more;
        if (result[0] + result[1] >= end)
            return;
        usleep(50000);
    }
    ok(0, "processor time within two minutes");
}

static void shares(void)
{
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"cpuset\": \"0\"}", &err);
    if (ringfence_container_start(spec, &container, &err) < 0 ||
        ringfence_container_group(container, "one", "{\"cpu_weight\": 100}", &err) < 0 ||
        ringfence_container_group(container, "three", "{\"cpu_weight\": 300}", &err) < 0)
        note("%s", ringfence_error_message(err));
    /* Neither of them ends by itself. */
    ringfence_process *burners[] = {start(container, "one", "yes", "x"), start(container, "three", "yes", "x")};
    ok(burners[0] && burners[1], "two groups on one processor");
    uint64_t before[2] = {0}, after[2] = {0};
    until_used(container, 300000, before);
    until_used(container, 4000000, after);
    double ratio = (double)(after[1] - before[1]) / (double)(after[0] - before[0]);
    ok(ratio >= 2.7 && ratio <= 3.3, "weights of 100 and 300 give one to three");
    note("one to %.3f", ratio);
    ok(ringfence_container_close(container, -1, &err) == 0, "close");
    ringfence_process_free(burners[0]);
    ringfence_process_free(burners[1]);
    ringfence_container_free(container);
    ringfence_spec_free(spec);
}

int main(void)
{
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"memory\": \"256M\"}", &err);
    if (ringfence_container_start(spec, &container, &err) < 0) {
        int kind = ringfence_error_kind(err);
        if (kind != RINGFENCE_KIND_UNSUPPORTED && kind != RINGFENCE_KIND_PERMISSION_DENIED)
            ok(0, "start: %s", ringfence_error_message(err));
        else
            skip("groups", ringfence_error_message(err));
        ringfence_error_free(err);
        ringfence_spec_free(spec);
        return done();
    }
    ok(ringfence_container_group(container, "workers", "{\"memory\": \"32M\", \"pids\": 20}", &err) == 0, "a group");
    ok(failed(ringfence_container_group(container, "workers", NULL, &err), RINGFENCE_KIND_ALREADY_EXISTS), "its name is taken");
    ok(failed(ringfence_container_group(container, "a/b", NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "no name");
    ok(failed(ringfence_container_group(container, NULL, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "NULL");
    ok(failed(ringfence_container_group(container, "x", "{\"hostname\": \"x\"}", &err), RINGFENCE_KIND_INVALID_SPEC),
       "a field that is no limit");
    ok(holds(ringfence_container_group_limits_json(container, "workers", &err), "pids", "20"), "its limits");
    ok(holds(ringfence_container_group_usage_json(container, "workers", &err), "memory_max", "33554432"), "its usage");

    ringfence_process *process = start(container, "workers", "tail", "/dev/zero");
    ok(ringfence_process_wait(process, 60000, &err) == 1 && ringfence_process_reason(process) == RINGFENCE_REASON_OUT_OF_MEMORY,
       "its limit holds");
    ringfence_process_free(process);

    ok(ringfence_container_group_update(container, "workers", "{\"pids\": 30}", &err) == 0, "update");
    ok(holds(ringfence_container_group_usage_json(container, "workers", &err), "pids_max", "30"), "a new limit");
    ok(failed(ringfence_container_group_update(container, "none", "{}", &err), RINGFENCE_KIND_NOT_FOUND), "no such group");

    process = start(container, "workers", "sleep", "60");
    ok(ringfence_container_group_freeze(container, "workers", &err) == 0, "freeze");
    ok(ringfence_process_wait(process, 50, &err) == 0, "it stands still");
    ok(ringfence_container_group_thaw(container, "workers", &err) == 0, "thaw");
    ok(ringfence_container_group_remove(container, "workers", &err) == -1 && ringfence_error_errno(err) == EBUSY, "it is in use");
    ringfence_error_free(err);
    err = NULL;
    ok(ringfence_container_group_kill(container, "workers", &err) == 0, "kill");
    ok(ringfence_process_wait(process, 10000, &err) == 1 && ringfence_process_signal(process) == 9, "it is dead");
    ringfence_process_free(process);
    ok(ringfence_container_group_remove(container, "workers", &err) == 0, "remove");
    ok(!ringfence_container_group_limits_json(container, "workers", NULL), "it is gone");

    ok(ringfence_container_close(container, -1, &err) == 0, "close");
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    shares();
    return done();
}
