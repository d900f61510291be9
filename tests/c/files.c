/* Files of a container for the program, and trees of the host.
   tests/run: vm=root */
#include <errno.h>
#include <fcntl.h>
#include <ringfence.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tap.h"

static ringfence_error *err;

static int failed(int64_t result, int number, const char *field)
{
    const char *found = ringfence_error_field(err);
    int good = result == -1 && ringfence_error_errno(err) == number && (field ? found && !strcmp(found, field) : 1);
    if (!good)
        note("result %lld: %s", (long long)result, err ? ringfence_error_message(err) : "no error");
    ringfence_error_free(err);
    err = NULL;
    return good;
}

static int fine(int64_t result, int64_t wanted)
{
    if (result != wanted)
        note("result %lld: %s", (long long)result, err ? ringfence_error_message(err) : "no error");
    return result == wanted;
}

int main(void)
{
    char top[] = "/tmp/ringfence-files-XXXXXX", tree[64], file[64], back[64], buffer[16];
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"files\": {\"/etc/ringfence-files\": \"within\"}}", &err);
    if (!mkdtemp(top)) {
        ok(0, "%s: %s", top, strerror(errno));
        return done();
    }
    if (ringfence_container_start(spec, &container, &err) < 0) {
        ok(0, "start: %s", ringfence_error_message(err));
        return done();
    }
    snprintf(tree, sizeof tree, "%s/tree", top);
    snprintf(file, sizeof file, "%s/tree/file", top);
    snprintf(back, sizeof back, "%s/back", top);

    ok(fine(ringfence_container_read_file(container, "/etc/ringfence-files", buffer, sizeof buffer, &err), 6) &&
           !memcmp(buffer, "within", 6),
       "a file is read");
    ok(fine(ringfence_container_read_file(container, "/etc/ringfence-files", buffer, 6, &err), 6), "a buffer that just fits");
    ok(failed(ringfence_container_read_file(container, "/etc/ringfence-files", buffer, 5, &err), EFBIG, "limit"), "one that does not");
    ok(failed(ringfence_container_read_file(container, "/dev/zero", buffer, sizeof buffer, &err), EINVAL, "path"), "a device");
    ok(failed(ringfence_container_read_file(container, "/nonsense", buffer, sizeof buffer, &err), ENOENT, "path"), "nothing there");
    ok(failed(ringfence_container_read_file(container, NULL, buffer, sizeof buffer, &err), EINVAL, NULL), "no path");
    ok(failed(ringfence_container_read_file(container, "/etc/ringfence-files", NULL, 1, &err), EINVAL, NULL), "no buffer");
    ok(failed(ringfence_container_read_file(NULL, "/", buffer, 1, &err), EINVAL, NULL), "no container");

    ok(fine(ringfence_container_write_file(container, "/tmp/new", "a\0b", 3, 0640, "0:0", &err), 0) &&
           fine(ringfence_container_read_file(container, "/tmp/new", buffer, sizeof buffer, &err), 3) && !memcmp(buffer, "a\0b", 3),
       "bytes are written");
    ok(fine(ringfence_container_write_file(container, "/tmp/new", NULL, 0, -1, NULL, &err), 0) &&
           fine(ringfence_container_read_file(container, "/tmp/new", buffer, sizeof buffer, &err), 0),
       "none are");
    ok(failed(ringfence_container_write_file(container, "/tmp/new", NULL, 1, -1, NULL, &err), EINVAL, NULL), "no data");
    ok(ringfence_container_write_file(container, "/tmp/new", "", 0, -2, NULL, &err) == -1 &&
           ringfence_error_kind(err) == RINGFENCE_KIND_INVALID_ARGUMENT && !strcmp(ringfence_error_field(err), "mode"),
       "no mode");
    ringfence_error_free(err);
    err = NULL;

    struct stat status;
    int made = mkdir(tree, 0700) == 0 && mkfifo(file, 0600) == 0;
    ok(made && failed(ringfence_container_copy_in(container, tree, "/tmp/copy", NULL, NULL, -1, &err), 0, "source"), "a FIFO is refused");
    ok(fine(ringfence_container_copy_in(container, tree, "/tmp/copy2", "0:0", "skip", 60000, &err), 0), "or left out");
    ok(fine(ringfence_container_write_file(container, "/tmp/copy2/file", "content", 7, 0604, NULL, &err), 0) &&
           fine(ringfence_container_copy_out(container, "/tmp/copy2", back, NULL, 60000, &err), 0),
       "a tree comes back");
    snprintf(file, sizeof file, "%s/back/file", top);
    ok(stat(file, &status) == 0 && status.st_size == 7 && (status.st_mode & 07777) == 0604 && status.st_uid == getuid(), "as it is inside");
    ok(failed(ringfence_container_copy_out(container, "/nonsense", back, NULL, -1, &err), ENOENT, "source"), "no source");
    ok(failed(ringfence_container_copy_out(container, "/tmp", back, NULL, 0, &err), ETIMEDOUT, NULL), "no time");
    ok(ringfence_container_copy_out(container, "/tmp", back, "nonsense", -1, &err) == -1 &&
           !strcmp(ringfence_error_field(err), "special"),
       "neither refuse nor skip");
    ringfence_error_free(err);
    err = NULL;
    ok(failed(ringfence_container_copy_in(container, NULL, "/tmp", NULL, NULL, -1, &err), EINVAL, NULL), "NULL is no source");

    ok(fine(ringfence_remove_tree(top, 60000, &err), 0) && access(top, F_OK) == -1, "a tree is removed");
    ok(failed(ringfence_remove_tree(top, -1, &err), ENOENT, "path"), "only once");
    ok(ringfence_remove_tree("/", -1, &err) == -1 && ringfence_error_kind(err) == RINGFENCE_KIND_INVALID_ARGUMENT, "not the root");
    ringfence_error_free(err);
    err = NULL;
    ok(failed(ringfence_remove_tree(NULL, -1, &err), EINVAL, NULL), "not NULL");

    char *volumes = ringfence_volumes_json(&err);
    ok(volumes && volumes[0] == '[', "volumes");
    ringfence_string_free(volumes);
    ok(failed(ringfence_volume_remove("nonsense-of-c", &err), ENOENT, "name"), "no such volume");
    ok(failed(ringfence_volume_remove(NULL, &err), EINVAL, NULL), "NULL is none");

    ringfence_container_close(container, 60000, &err);
    ok(ringfence_container_read_file(container, "/", buffer, 1, &err) == -1 && ringfence_error_kind(err) == RINGFENCE_KIND_CLOSED, "closed");
    ringfence_error_free(err);
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    return done();
}
