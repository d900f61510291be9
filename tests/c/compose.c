/* Groups of containers with an order.

   tests/run: vm=root */
#include <ringfence.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failed.h"
#include "tap.h"

static int add(ringfence_group *group, const char *name, const char *json, const char *after)
{
    ringfence_spec *spec = ringfence_spec_from_json(json, &err);
    int result = spec ? ringfence_group_add(group, name, spec, after, NULL, &err) : -1;
    ringfence_spec_free(spec);
    return result;
}

static int is_field(const char *field)
{
    const char *seen = err ? ringfence_error_field(err) : NULL;
    return seen && !strcmp(seen, field);
}

static const char *SLEEPS = "{\"argv\": [\"sleep\", \"1000\"]}";

static void together(void)
{
    ringfence_group *group = ringfence_group_new(NULL, &err);
    ringfence_container *web = NULL;
    char *text = NULL, *name = NULL;
    ok(group && ringfence_group_is_started(group) == 0, "a group");
    ok(add(group, "web", SLEEPS, "db, cache") == 0 && add(group, "db", SLEEPS, NULL) == 0, "members");
    ok(failed(ringfence_group_start(group, 1000, &err), RINGFENCE_KIND_INVALID_SPEC), "somebody is missing");
    ok(failed(add(group, "db", SLEEPS, NULL), RINGFENCE_KIND_ALREADY_EXISTS), "twice");
    ok(failed(ringfence_group_merge_json(group, "{\"x\": {\"memroy\": 1}}", &err), RINGFENCE_KIND_INVALID_SPEC), "a wrong description");
    ok(ringfence_group_merge_json(group, "{\"cache\": {\"argv\": [\"sleep\", \"1000\"], \"after\": [\"db\"]}}", &err) == 0, "a description");
    text = ringfence_group_order_json(group, &err);
    ok(text && !strcmp(text, "[[\"db\"],[\"cache\"],[\"web\"]]"), "the order");
    ringfence_string_free(text);
    ok(failed(ringfence_group_container(group, "web", &web, &err), RINGFENCE_KIND_CLOSED) && !web, "not yet");
    ok(ringfence_group_start(group, 60000, &err) == 0 && ringfence_group_is_started(group) == 1, "started");
    ok(ringfence_group_container(group, "web", &web, &err) == 0 && ringfence_container_pid(web) > 0, "one of them");
    ok(failed(ringfence_group_container(group, "wbe", &web, &err), RINGFENCE_KIND_NOT_FOUND), "none of that name");
    ok(ringfence_group_wait(group, 0, &err) == 0 && ringfence_group_wait_any(group, 1, &name, &err) == 0 && !name, "they run");
    ok(ringfence_container_kill(web, &err) == 0 && ringfence_group_wait_any(group, 60000, &name, &err) == 1 && !strcmp(name, "web"), "one ends");
    ringfence_string_free(name);
    ok(ringfence_group_kill(group, &err) == 0 && ringfence_group_wait(group, 60000, &err) == 1, "all end");
    ok(ringfence_group_close(group, 10000, &err) == 0 && ringfence_group_close(group, -1, &err) == 0, "closed, twice");
    ok(failed(ringfence_group_start(group, -1, &err), RINGFENCE_KIND_CLOSED), "closed for good");
    ringfence_container_free(web);
    ringfence_group_free(group);
}

static void ready(void)
{
    ringfence_group *group = ringfence_group_new(NULL, NULL);
    ringfence_spec *spec = ringfence_spec_from_json("{\"argv\": [\"sh\", \"-c\", \"sleep 0.1; echo up; exec sleep 1000\"]}", &err);
    ringfence_container *db = NULL;
    char text[16] = "";
    ok(ringfence_group_add(group, "db", spec, NULL, "{\"log\": \"^up$\"}", &err) == 0 && add(group, "web", SLEEPS, "db") == 0 &&
           ringfence_group_start(group, 60000, &err) == 0 && ringfence_group_container(group, "db", &db, &err) == 0,
       "ready");
    ok(ringfence_container_log_read(db, 0, text, sizeof text - 1, &err) == 3 && !strcmp(text, "up\n"), "it had said so");
    ringfence_container_free(db);
    ringfence_group_close(group, 0, NULL);
    ringfence_group_free(group);

    group = ringfence_group_new(NULL, NULL);
    ringfence_group_add(group, "db", spec, NULL, "{\"log\": \"^never\"}", NULL);
    /* Long enough for a start on an emulated processor. */
    const char *tier = getenv("RINGFENCE_TEST_TIER");
    int result = ringfence_group_start(group, tier && !strcmp(tier, "vm") ? 6000 : 1000, &err);
    int told = err && strstr(ringfence_error_message(err), "group member \"db\": ") != NULL && strstr(ringfence_error_json(err), "\"up\\n\"") != NULL;
    ok(failed(result, RINGFENCE_KIND_TIMED_OUT) && told, "not ready, with its log");
    ringfence_group_free(group);
    ringfence_spec_free(spec);
}

/* A member that writes down its end when it is asked to. */
static int add_telling(ringfence_group *group, const char *name, const char *log, const char *after)
{
    char json[1024];
    snprintf(json, sizeof json,
             "{\"argv\": [\"sh\", \"-c\", \"trap 'echo %s >>/log; exit 0' TERM; echo up; while :; do sleep 0.02; done\"],"
             " \"mounts\": [{\"source\": \"%s\", \"target\": \"/log\", \"rw\": true}]}",
             name, log);
    ringfence_spec *spec = ringfence_spec_from_json(json, &err);
    int result = spec ? ringfence_group_add(group, name, spec, after, "{\"log\": \"^up$\"}", &err) : -1;
    ringfence_spec_free(spec);
    return result;
}

static void none(void)
{
    ringfence_group *group = ringfence_group_new(NULL, NULL);
    char log[256], text[64] = "";
    const char *tmp = getenv("TMPDIR");
    snprintf(log, sizeof log, "%s/compose-XXXXXX", tmp ? tmp : "/tmp");
    int fd = mkstemp(log);
    ok(fd >= 0 && add_telling(group, "db", log, "") == 0 && add_telling(group, "web", log, "db") == 0 &&
           add(group, "broken", "{\"argv\": [\"/no/such/program\"]}", "web") == 0,
       "one that cannot start");
    int result = ringfence_group_start(group, 60000, &err);
    int named = err && !strncmp(ringfence_error_message(err), "group member \"broken\": ", 23);
    ok(failed(result, RINGFENCE_KIND_NOT_FOUND) && named && ringfence_group_is_started(group) == 0, "none of them");
    ok(pread(fd, text, sizeof text - 1, 0) == 7 && !strcmp(text, "web\ndb\n"), "those that had started were stopped, in reverse");
    unlink(log);
    close(fd);
    add(group, "a", SLEEPS, "b");
    add(group, "b", SLEEPS, "a");
    result = ringfence_group_start(group, 60000, &err);
    named = is_field("after") && strstr(ringfence_error_message(err), "a after b after a") != NULL;
    ok(failed(result, RINGFENCE_KIND_INVALID_SPEC) && named, "a circle is shown");
    ringfence_group_free(group);
}

static void bad_input(void)
{
    ringfence_group *group = ringfence_group_new(NULL, NULL);
    ringfence_spec *spec = ringfence_spec_new();
    ringfence_container *container = NULL;
    const ringfence_kind kind = RINGFENCE_KIND_INVALID_ARGUMENT;
    ok(failed(ringfence_group_add(NULL, "a", spec, NULL, NULL, &err), kind) && failed(ringfence_group_add(group, NULL, spec, NULL, NULL, &err), kind) &&
           failed(ringfence_group_add(group, "a", NULL, NULL, NULL, &err), kind) && failed(ringfence_group_start(group, -2, &err), kind) &&
           failed(ringfence_group_merge_json(group, NULL, &err), kind) && failed(ringfence_group_container(group, "a", NULL, &err), kind) &&
           failed(ringfence_group_container(group, NULL, &container, &err), kind) && failed(ringfence_group_wait_any(group, 0, NULL, &err), kind) &&
           failed(ringfence_group_start(group, 0, &err), kind) && failed(ringfence_group_close(NULL, 0, &err), kind) &&
           ringfence_group_is_started(NULL) == -1 && !ringfence_group_order_json(NULL, NULL),
       "NULL, -2, nobody");
    int result = ringfence_group_add(group, "a/b", spec, NULL, NULL, &err);
    int named = is_field("name");
    ok(failed(result, RINGFENCE_KIND_INVALID_SPEC) && named, "no name");
    result = ringfence_group_add(group, "a", spec, NULL, "{\"port\": 0}", &err);
    named = is_field("wait_for.port");
    ok(failed(result, RINGFENCE_KIND_INVALID_ARGUMENT) && named, "no port");
    ringfence_spec_free(spec);
    ringfence_group_free(group);
    ringfence_group_free(NULL);
    /* Freed without a close: nothing is left, which the leak check sees. */
    group = ringfence_group_new(NULL, NULL);
    ok(add(group, "one", SLEEPS, NULL) == 0 && ringfence_group_start(group, 60000, &err) == 0, "started");
    ringfence_group_free(group);
}

int main(void)
{
    together();
    ready();
    none();
    bad_input();
    return done();
}
