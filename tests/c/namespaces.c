/* Namespaces by descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <ringfence.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"
#include "tap.h"

static ringfence_error *err;

static const char *const kinds[] = {"mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"};

static int failed(int result, ringfence_kind kind, const char *field)
{
    const char *seen = ringfence_error_field(err);
    int good = result == -1 && ringfence_error_kind(err) == kind && seen && !strcmp(seen, field);
    if (!good)
        note("result %d: %s (%s, %s)", result, ringfence_error_message(err), ringfence_error_kind_name(err), seen ? seen : "no field");
    ringfence_error_free(err);
    err = NULL;
    return good;
}

/* Whether two descriptors are of one namespace; closes the second. */
static int same(int one, int other)
{
    struct stat a, b;
    int good = !fstat(one, &a) && !fstat(other, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    if (!good)
        note("%d and %d: %s", one, other, ringfence_error_message(err));
    if (other >= 0)
        close(other);
    return good;
}

static unsigned long long number(json object, const char *key)
{
    char *text = json_text(json_get(object, key));
    unsigned long long value = text ? strtoull(text, NULL, 10) : 0;
    free(text);
    return value;
}

static int contains(json list, int pid)
{
    size_t position = 0;
    for (json item = json_next(list, &position); item.at; item = json_next(list, &position))
        if (strtol(item.at, NULL, 10) == pid)
            return 1;
    return 0;
}

static int is_kind(json object, const char *kind)
{
    char *text = json_text(json_get(object, "kind"));
    int good = text && !strcmp(text, kind);
    free(text);
    return good;
}

/* The element of the list of all namespaces. */
static json entry(json list, const char *kind, unsigned long long inode)
{
    size_t position = 0;
    json item = json_next(list, &position);
    while (item.at && (number(item, "inode") != inode || !is_kind(item, kind)))
        item = json_next(list, &position);
    return item;
}

static void of_container(ringfence_container *container)
{
    int pid = ringfence_container_pid(container);
    char text[64];
    char *all = ringfence_namespaces_json(&err);
    json list = {all, all ? strlen(all) : 0};
    ok(all, "all namespaces: %s", ringfence_error_message(err));
    int user = ringfence_container_ns_fd(container, "user", &err);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const char *kind = kinds[i];
        int fd = ringfence_container_ns_fd(container, kind, &err);
        struct stat stat;
        ok(fd >= 0 && !fstat(fd, &stat), "%s: a descriptor", kind);
        snprintf(text, sizeof text, "pid:%d", pid);
        ok(same(fd, ringfence_namespace_fd(text, kind, &err)), "%s: by pid", kind);
        snprintf(text, sizeof text, "/proc/%d/ns/%s", pid, kind);
        ok(same(fd, ringfence_namespace_fd(text, NULL, &err)), "%s: by path", kind);
        snprintf(text, sizeof text, "fd:%d", ringfence_container_pidfd(container));
        ok(same(fd, ringfence_namespace_fd(text, kind, &err)), "%s: by pidfd", kind);
        snprintf(text, sizeof text, "fd:%d", fd);
        int copy = ringfence_namespace_fd(text, NULL, &err);
        ok(fcntl(copy, F_GETFD) == FD_CLOEXEC && copy != fd && same(fd, copy), "%s: by descriptor", kind);
        ok(same(fd, ringfence_namespace_fd("host", kind, &err)) == !strcmp(kind, "time"), "%s: the caller's own", kind);

        char *known = ringfence_namespace_json(fd, &err);
        json object = {known, known ? strlen(known) : 0};
        json listed = entry(list, kind, stat.st_ino);
        ok(known && is_kind(object, kind) && number(object, "inode") == stat.st_ino && number(object, "device") == stat.st_dev,
           "%s: which it is", kind);
        ok(contains(json_get(object, "members"), pid) && contains(json_get(listed, "members"), pid), "%s: members", kind);
        ok(number(listed, "id") == number(object, "id") && number(listed, "owner") == number(object, "owner") &&
               number(listed, "parent") == number(object, "parent") &&
               number(listed, "owner_uid") == number(object, "owner_uid"),
           "%s: the list says the same", kind);
        ringfence_string_free(known);
        if (strcmp(kind, "user") && strcmp(kind, "time") && strcmp(kind, "cgroup"))
            ok(same(user, ringfence_namespace_owner_fd(fd, &err)), "%s: the owner", kind);
        if (!strcmp(kind, "pid")) {
            int own = ringfence_namespace_fd("host", kind, &err);
            ok(same(own, ringfence_namespace_parent_fd(fd, &err)), "%s: the parent", kind);
            close(own);
            ok(ringfence_namespace_pid_in(fd, pid, &err) == 1, "its pid inside");
            ok(ringfence_namespace_pid_from(fd, 1, &err) == pid, "its pid outside");
            ok(failed(ringfence_namespace_pid_in(fd, getpid(), &err), RINGFENCE_KIND_NOT_FOUND, "pid"), "who is not inside");
            ok(failed(ringfence_namespace_pid_from(fd, 4000000, &err), RINGFENCE_KIND_NOT_FOUND, "pid"), "nobody");
        } else if (strcmp(kind, "user")) {
            ok(failed(ringfence_namespace_parent_fd(fd, &err), RINGFENCE_KIND_NOT_FOUND, "parent"), "%s: no parent", kind);
            ok(failed(ringfence_namespace_pid_in(fd, pid, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "kind"), "%s: no pids", kind);
        }
        close(fd);
    }
    close(user);
    ringfence_string_free(all);
}

/* A descriptor keeps a namespace when all processes are gone. */
static void kept(ringfence_container *container)
{
    struct stat stat;
    int fd = ringfence_container_ns_fd(container, "net", &err);
    ok(fd >= 0 && !fstat(fd, &stat), "a descriptor");
    ok(ringfence_container_close(container, -1, &err) == 0, "close");
    char *all = ringfence_namespaces_json(&err);
    json list = {all, all ? strlen(all) : 0};
    json listed = entry(list, "net", stat.st_ino);
    size_t position = 0;
    ok(listed.at && contains(json_get(listed, "held_by"), getpid()), "it is listed, held by this process");
    ok(listed.at && !json_next(json_get(listed, "members"), &position).at, "it has no members");
    ringfence_string_free(all);
    close(fd);
    ok(ringfence_container_ns_fd(container, "net", &err) == -1 && ringfence_error_kind(err) == RINGFENCE_KIND_CLOSED,
       "of a closed container");
    ringfence_error_free(err);
    err = NULL;
}

/* Mounted at a path, a namespace stays. */
static void pinned(ringfence_container *container)
{
    char path[] = "/var/tmp/ringfence-pinned-XXXXXX";
    char file[sizeof path + 8];
    if (!mkdtemp(path))
        return (void)ok(0, "a directory");
    snprintf(file, sizeof file, "%s/net", path);
    int net = ringfence_container_ns_fd(container, "net", &err);
    int result = ringfence_namespace_pin(net, file, &err);
    if (geteuid() == 0) {
        ok(result == 0 && same(net, ringfence_namespace_fd(file, NULL, &err)), "pinned");
        ok(failed(ringfence_namespace_pin(net, file, &err), RINGFENCE_KIND_ALREADY_EXISTS, "path"), "there is one");
        ok(ringfence_namespace_unpin(file, &err) == 0, "unpinned");
    } else {
        ok(failed(result, RINGFENCE_KIND_PERMISSION_DENIED, "path"), "to mount takes rights");
    }
    ok(failed(ringfence_namespace_unpin(file, &err), RINGFENCE_KIND_NOT_FOUND, "path"), "nothing there");
    ok(failed(ringfence_namespace_pin(-1, file, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "fd"), "no descriptor");
    close(net);
    rmdir(path);
}

int main(void)
{
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{}", &err);
    if (ringfence_container_start(spec, &container, &err) < 0) {
        ok(0, "start: %s", ringfence_error_message(err));
        return done();
    }
    of_container(container);
    pinned(container);
    kept(container);

    ok(failed(ringfence_container_ns_fd(container, "disk", &err), RINGFENCE_KIND_INVALID_ARGUMENT, "kind"), "an unknown kind");
    ok(failed(ringfence_namespace_fd("host", "disk", &err), RINGFENCE_KIND_INVALID_ARGUMENT, "kind"), "an unknown kind");
    ok(failed(ringfence_namespace_fd("host", NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "kind"), "no kind");
    ok(failed(ringfence_namespace_fd("new", "net", &err), RINGFENCE_KIND_INVALID_ARGUMENT, "source"), "none that exists");
    ok(failed(ringfence_namespace_fd("etc/passwd", "net", &err), RINGFENCE_KIND_INVALID_ARGUMENT, "source"), "a relative path");
    ok(failed(ringfence_namespace_fd("/etc/passwd", "net", &err), RINGFENCE_KIND_INVALID_ARGUMENT, "path"), "no namespace");
    ok(failed(ringfence_namespace_fd("/no/such", "net", &err), RINGFENCE_KIND_NOT_FOUND, "path"), "no file");
    ok(failed(ringfence_namespace_fd("/proc/self/ns/uts", "net", &err), RINGFENCE_KIND_INVALID_ARGUMENT, "kind"), "another kind");
    ok(failed(ringfence_namespace_fd("fd:987", "net", &err), RINGFENCE_KIND_INVALID_ARGUMENT, "fd"), "a closed descriptor");
    ok(failed(ringfence_namespace_fd("pid:4194303", "net", &err), RINGFENCE_KIND_NOT_FOUND, "pid"), "no process");
    ok(ringfence_namespace_fd(NULL, "net", &err) == -1 && ringfence_error_kind(err) == RINGFENCE_KIND_INVALID_ARGUMENT, "NULL");
    ringfence_error_free(err);
    err = NULL;
    for (int i = 0; i < 2; i++) {
        int fd = i ? 987 : -1;
        ok(failed(ringfence_namespace_owner_fd(fd, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "fd"), "owner of fd %d", fd);
        ok(failed(ringfence_namespace_parent_fd(fd, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "fd"), "parent of fd %d", fd);
        ok(failed(ringfence_namespace_pid_in(fd, 1, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "fd"), "pid in fd %d", fd);
        ok(failed(ringfence_namespace_pid_from(fd, 1, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "fd"), "pid from fd %d", fd);
        ok(!ringfence_namespace_json(fd, NULL), "fd %d", fd);
    }
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    return done();
}
