/* Containers that share namespaces.

   tests/run: vm=root,user */
#include <errno.h>
#include <poll.h>
#include <ringfence.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "failed.h"
#include "json.h"
#include "tap.h"

static ringfence_pod *new_pod(const char *json, const char *share)
{
    ringfence_pod *pod = NULL;
    ringfence_spec *spec = ringfence_spec_from_json(json, &err);
    if (!spec || ringfence_pod_start(spec, share, &pod, &err) < 0)
        note("%s", ringfence_error_message(err));
    ringfence_spec_free(spec);
    return pod;
}

static ringfence_container *start(const ringfence_pod *pod, const char *json)
{
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_from_json(json, &err);
    if (!spec || ringfence_pod_container(pod, spec, &container, &err) < 0)
        note("%s", ringfence_error_message(err));
    ringfence_spec_free(spec);
    return container;
}

static int refused(const ringfence_pod *pod, const char *json, ringfence_kind kind, const char *field)
{
    ringfence_container *container = NULL;
    ringfence_pod *made = NULL;
    ringfence_spec *spec = ringfence_spec_from_json(json, NULL);
    int result = pod ? ringfence_pod_container(pod, spec, &container, &err) : ringfence_pod_start(spec, NULL, &made, &err);
    const char *seen = err ? ringfence_error_field(err) : NULL;
    int named = !field || (seen && !strcmp(seen, field));
    ringfence_spec_free(spec);
    return failed(result, kind) && named && !container && !made;
}

/* What a script says. */
static const char *say(const ringfence_container *container, const char *script)
{
    static char text[256];
    ringfence_process *process = NULL;
    ringfence_command *command = ringfence_command_new("sh");
    ssize_t length = 0, got = 0;
    if (ringfence_command_arg(command, "-c", &err) < 0 || ringfence_command_arg(command, script, &err) < 0 ||
        ringfence_command_set(command, "stdout", "pipe", &err) < 0 || ringfence_container_spawn(container, command, &process, &err) < 0)
        note("%s", ringfence_error_message(err));
    else
        while ((got = read(ringfence_process_stdout_fd(process), text + length, sizeof text - 1 - (size_t)length)) > 0)
            length += got;
    text[length] = 0;
    ringfence_process_wait(process, 60000, NULL);
    ringfence_process_free(process);
    ringfence_command_free(command);
    return text;
}

static int json_has(char *text, const char *key, const char *wanted)
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

static void process_ids(void)
{
    ringfence_pod *pod = NULL;
    ringfence_spec *spec = ringfence_spec_new();
    if (ringfence_pod_start(spec, "net,pid", &pod, &err) < 0) {
        ok(ringfence_error_kind(err) == RINGFENCE_KIND_UNSUPPORTED && !strcmp(ringfence_error_field(err), "share"),
           "without a control group process ids cannot be shared");
        skip("process ids are shared", ringfence_error_message(err));
        ringfence_error_free(err);
        err = NULL;
    } else {
        ringfence_container *one = start(pod, "{\"argv\": [\"sleep\", \"1000\"]}"), *two = start(pod, "{}");
        ok(!strcmp(say(two, "ps -e -o comm= | grep -c '^sleep$'"), "1\n"), "process ids are shared");
        ok(ringfence_pod_close(pod, -1, &err) == 0, "close");
        ringfence_container_free(one);
        ringfence_container_free(two);
    }
    ringfence_pod_free(pod);
    ringfence_spec_free(spec);
}

static void limits(void)
{
    ringfence_pod *pod = NULL;
    ringfence_events *events = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"pids\": 40}", &err);
    if (ringfence_pod_start(spec, NULL, &pod, &err) < 0) {
        ok(!strcmp(ringfence_error_field(err), "pids"), "a limit that cannot be had");
        skip("limits of a pod", ringfence_error_message(err));
        ringfence_error_free(err);
        err = NULL;
    } else {
        ringfence_container *container = start(pod, "{}");
        ok(json_has(ringfence_pod_usage_json(pod, &err), "pids_max", "40"), "limits of a pod");
        ok(ringfence_pod_update(pod, "{\"pids\": 50}", &err) == 0 && json_has(ringfence_pod_spec_json(pod, &err), "pids", "50"),
           "they change");
        ok(failed(ringfence_pod_update(pod, "{\"hostname\": \"x\"}", &err), RINGFENCE_KIND_INVALID_SPEC), "what is no limit does not");
        ok(ringfence_pod_events(pod, NULL, &events, &err) == 0, "events");
        ok(ringfence_pod_freeze(pod, &err) == 0 && refused(pod, "{}", RINGFENCE_KIND_FROZEN, NULL), "freeze");
        ok(ringfence_pod_thaw(pod, &err) == 0, "thaw");
        ok(ringfence_pod_kill(pod, &err) == 0 && ringfence_pod_wait(pod, 60000, &err) == 1, "kill and wait");
        while (!ringfence_events_is_over(events) && ringfence_events_next(events, 60000, &err) == 1)
            continue;
        ok(ringfence_events_kind(events) == RINGFENCE_EVENT_KIND_ENDED, "the last event is its end");
        ringfence_events_free(events);
        ringfence_container_free(container);
    }
    ringfence_pod_free(pod);
    ringfence_spec_free(spec);
}

int main(void)
{
    ringfence_pod *pod = new_pod("{\"hostname\": \"shop\"}", NULL);
    ringfence_container *web = start(pod, "{\"name\": \"pods-c-web\"}"), *client = start(pod, "{}"), *found = NULL;
    if (!ok(pod && web && client, "a pod with two containers"))
        return done();
    int server = ringfence_container_listen(web, "127.0.0.1:80", 1, &err);
    int socket = ringfence_container_connect(client, "127.0.0.1:80", -1, &err);
    int other = accept(server, NULL, NULL);
    char text[6] = "";
    ok(write(socket, "hello", 5) == 5 && read(other, text, 5) == 5 && !strcmp(text, "hello"), "they talk over localhost");
    close(server), close(socket), close(other);
    ok(!strcmp(say(client, "hostname"), "shop\n"), "the same host name");
    say(web, "echo posix >/dev/shm/x; echo >/tmp/own");
    ok(!strcmp(say(client, "cat /dev/shm/x; ls /tmp"), "posix\n"), "shared memory, and files apart");

    ok(ringfence_pod_container_count(pod) == 2, "count");
    ok(ringfence_pod_container_at(pod, 0, &found, &err) == 0 && !strcmp(ringfence_container_id(found), ringfence_container_id(web)),
       "by place");
    ringfence_container_free(found), found = NULL;
    ok(ringfence_pod_find_container(pod, "pods-c-web", &found, &err) == 0 &&
           !strcmp(ringfence_container_id(found), ringfence_container_id(web)),
       "by name");
    ringfence_container_free(found), found = NULL;
    ok(failed(ringfence_pod_container_at(pod, 2, &found, &err), RINGFENCE_KIND_NOT_FOUND), "no such place");
    ok(failed(ringfence_pod_container_at(pod, -1, &found, &err), RINGFENCE_KIND_NOT_FOUND), "a place below 0");
    ok(failed(ringfence_pod_find_container(pod, "none", &found, &err), RINGFENCE_KIND_NOT_FOUND), "no such name");
    ok(json_has(ringfence_pod_info_json(pod, &err), "id", ringfence_pod_id(pod)), "info");
    ok(!ringfence_pod_name(pod) && ringfence_pod_pid(pod) > 1 && ringfence_pod_pidfd(pod) >= 0, "what it is");

    ok(refused(pod, "{\"hostname\": \"own\"}", RINGFENCE_KIND_INVALID_SPEC, "hostname"), "a host name of its own");
    ok(refused(pod, "{\"namespaces\": {\"net\": \"new\"}}", RINGFENCE_KIND_INVALID_SPEC, "namespaces.net"), "a network of its own");
    ok(refused(NULL, "{\"rootfs\": \"/srv\"}", RINGFENCE_KIND_INVALID_SPEC, "rootfs"), "a field of containers");
    ringfence_spec *spec = ringfence_spec_new();
    ringfence_pod *none = NULL;
    ok(failed(ringfence_pod_start(spec, "net,mnt", &none, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "what cannot be shared");
    ok(failed(ringfence_pod_start(spec, "", &none, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "nothing shared");
    ok(failed(ringfence_pod_start(NULL, NULL, &none, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "no spec");
    ok(failed(ringfence_pod_start(spec, NULL, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "no place for the result");
    ok(failed(ringfence_pod_container(NULL, spec, &found, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "no pod");
    ok(failed(ringfence_pod_container((ringfence_pod *)web, spec, &found, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "something else");
    ok(failed(ringfence_pod_ns_fd(pod, "mnt", &err), RINGFENCE_KIND_INVALID_ARGUMENT), "a namespace that is not shared");
    int fd = ringfence_pod_ns_fd(pod, "net", &err);
    /* An ordinary user may not trace what its keeper made. */
    ok(fd >= 0 || (geteuid() && failed(fd, RINGFENCE_KIND_PERMISSION_DENIED)), "a namespace that is shared");
    if (fd >= 0)
        close(fd);

    /* To free the handle of a container ends nothing. */
    ringfence_container_free(client);
    ok(ringfence_pod_container_count(pod) == 2, "a freed handle");
    ok(ringfence_container_close(web, -1, &err) == 0 && ringfence_pod_container_count(pod) == 1 && ringfence_pod_is_running(pod) == 1,
       "a closed container");
    ok(ringfence_pod_stop(pod, 10, &err) == 0 && ringfence_pod_is_running(pod) == 0, "stop");
    struct pollfd ended = {.fd = ringfence_pod_events_fd(pod), .events = POLLIN};
    ok(poll(&ended, 1, 60000) == 1, "its descriptor tells");
    ok(refused(pod, "{}", RINGFENCE_KIND_CLOSED, NULL), "no start after the end");
    ok(failed(ringfence_pod_wait(pod, 0, &err), RINGFENCE_KIND_CLOSED), "no wait after the end");
    ok(ringfence_pod_close(pod, -1, &err) == 0, "close it again");
    ringfence_pod_free(pod);
    ringfence_container_free(web);

    /* The free of a pod that was not closed ends it and its containers. */
    pod = new_pod("{}", "uts");
    web = start(pod, "{\"argv\": [\"sleep\", \"1000\"], \"net\": \"none\"}");
    ringfence_process *process = NULL;
    ok(ringfence_container_main(web, &process, &err) == 0, "a process");
    ringfence_pod_free(pod);
    ok(ringfence_process_wait(process, 60000, &err) == 1, "it ends with the pod");
    ringfence_process_free(process);
    ok(ringfence_container_close(web, -1, &err) == 0, "close");
    ringfence_container_free(web);
    ringfence_pod_free(NULL);
    ok(!ringfence_pod_name(NULL) && !ringfence_pod_id(NULL) && ringfence_pod_pid(NULL) == -1 && ringfence_pod_is_running(NULL) == -1,
       "getters of NULL");
    ringfence_spec_free(spec);

    process_ids();
    limits();
    return done();
}
