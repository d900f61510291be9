/* Limits that change while a container runs. */
#include <errno.h>
#include <fcntl.h>
#include <ringfence.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"
#include "started.h"

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

/* A file of the host that is in nobody's account. Not below TMPDIR, which may be in memory. */
static int make_file(char *directory)
{
    enum { SIZE = 32 << 20 };
    char path[64], *bytes = malloc(SIZE);
    for (uint64_t i = 0, random = 1; i < SIZE; i++, random = random * 6364136223846793005 + 1)
        bytes[i] = (char)(random >> 56);
    int good = bytes && mkdtemp(directory) && chmod(directory, 0755) == 0;
    snprintf(path, sizeof path, "%s/file", directory);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    good = good && write(fd, bytes, SIZE) == SIZE && fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
    close(fd);
    free(bytes);
    return good;
}

static void page_cache(void)
{
    char directory[] = "/var/tmp/update-XXXXXX", text[128];
    ringfence_container *container = NULL;
    ringfence_process *process = NULL;
    ok(make_file(directory), "a file");
    snprintf(text, sizeof text, "{\"memory\": \"256M\", \"mounts\": [\"%s:/data\"]}", directory);
    ringfence_spec *spec = ringfence_spec_from_json(text, &err);
    ringfence_command *command = ringfence_command_new("cat");
    if (ringfence_container_start(spec, &container, &err) < 0 || ringfence_command_arg(command, "/data/file", &err) < 0 ||
        ringfence_command_set(command, "stdout", "null", &err) < 0 || ringfence_container_spawn(container, command, &process, &err) < 0)
        note("%s", ringfence_error_message(err));
    ok(ringfence_process_wait(process, 60000, &err) == 1 && ringfence_process_exit_code(process) == 0, "it is read inside");
    uint64_t before = figure(container, "memory_file");
    ok(before >= 32 << 20, "it is in the page cache");
    int taken = ringfence_container_reclaim(container, 8 << 20, &err);
    if (taken < 0 && ringfence_error_kind(err) == RINGFENCE_KIND_UNSUPPORTED) {
        skip("page cache is reclaimed", ringfence_error_message(err));
        ringfence_error_free(err);
        err = NULL;
    } else {
        uint64_t fallen = before - figure(container, "memory_file");
        note("%d, %llu bytes", taken, (unsigned long long)fallen);
        ok(taken == 1 && fallen >= 6 << 20 && fallen <= 16 << 20, "page cache is reclaimed");
    }
    ringfence_process_free(process);
    ringfence_command_free(command);
    ringfence_container_close(container, -1, NULL);
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    snprintf(text, sizeof text, "%s/file", directory);
    ok(unlink(text) == 0 && rmdir(directory) == 0, "the file is removed");
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
    page_cache();
    return done();
}
