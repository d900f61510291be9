/* Events of a container: read one by one, waited for with poll, until the end.
 *
 * tests/run: timeout=300 vm=root
 */
#include <errno.h>
#include <poll.h>
#include <ringfence.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json.h"
#include "started.h"

static ringfence_events *events_of(ringfence_container *container, const char *options)
{
    ringfence_events *events = NULL;
    return ringfence_container_events(container, options, &events, &err) < 0 ? explain() : events;
}

static int run_python(ringfence_container *container, const char *script)
{
    ringfence_command *command = ringfence_command_new("python3");
    ringfence_process *process = NULL;
    int signal = -1;
    if (ringfence_command_arg(command, "-c", &err) < 0 || ringfence_command_arg(command, script, &err) < 0 ||
        ringfence_command_set(command, "stdin", "null", &err) < 0 ||
        ringfence_container_spawn(container, command, &process, &err) < 0 || ringfence_process_wait(process, 60000, &err) < 1)
        explain();
    else
        signal = ringfence_process_signal(process);
    ringfence_process_free(process);
    ringfence_command_free(command);
    return signal;
}

/* Reads until an event of this kind. */
static int next_of(ringfence_events *events, ringfence_event_kind kind)
{
    int result;
    while ((result = ringfence_events_next(events, 60000, &err)) == 1)
        if (ringfence_events_kind(events) == kind)
            return 1;
    if (result < 0)
        explain();
    return 0;
}

static int readable(ringfence_events *events, int milliseconds)
{
    struct pollfd one = {ringfence_events_fd(events), POLLIN, 0};
    return poll(&one, 1, milliseconds) == 1;
}

static int has_kind(ringfence_events *events, const char *name)
{
    char *text = ringfence_events_kinds_json(events, &err), quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    int found = text && strstr(text, quoted) != NULL;
    ringfence_string_free(text);
    return found;
}

static void counts(void)
{
    ringfence_container *container = start("{\"memory\": \"40M\", \"swap\": 0}");
    if (!container) {
        skip("out of memory", "memory cannot be limited here");
        return;
    }
    ringfence_events *events = events_of(container, NULL), *slow = events_of(container, "{\"kinds\": [\"oom_kill\"]}");
    ok(events && slow && ringfence_events_kind(events) == 0 && !ringfence_events_kind_name(events), "two readers, no event yet");
    ok(ringfence_events_next(events, 0, &err) == 0 && !ringfence_events_is_over(events), "nothing to read");
    ok(has_kind(events, "oom_kill") && has_kind(events, "ended") && !has_kind(slow, "oom"), "kinds that are told");
    for (int i = 1; i <= 2; i++) {
        ok(run_python(container, "x = bytearray(200 << 20)") == 9, "killed for want of memory");
        ok(next_of(events, RINGFENCE_EVENT_KIND_OOM_KILL), "told");
        ok(ringfence_events_count(events) == 1 && ringfence_events_total(events) == (uint64_t)i, "once, %d in all", i);
    }
    ok(!strcmp(ringfence_events_kind_name(events), "oom_kill") && ringfence_events_threshold(events) == -1 &&
           !ringfence_events_resource(events) && !ringfence_events_level(events),
       "its name, no threshold");
    ok(ringfence_events_time_ns(events) > 1000000000000000000 && ringfence_events_monotonic_ns(events) > 0, "its time");
    char *text = ringfence_events_json(events, &err);
    json whole = {text, text ? strlen(text) : 0};
    ok(text && json_get(whole, "monotonic_ns").at && json_get(whole, "count").at, "as JSON");
    ringfence_string_free(text);
    ok(readable(slow, 10000) && next_of(slow, RINGFENCE_EVENT_KIND_OOM_KILL), "a slow reader");
    ok(ringfence_events_count(slow) == 2 && ringfence_events_total(slow) == 2, "gets both as one");
    ok(ringfence_container_close(container, -1, &err) == 0, "close");
    ringfence_container_free(container);
    ok(next_of(events, RINGFENCE_EVENT_KIND_ENDED), "the end is told after the handle is gone");
    ok(ringfence_events_next(events, -1, &err) == 0 && ringfence_events_is_over(events) == 1 && readable(events, 0), "and nothing more");
    ok(!strcmp(ringfence_events_kind_name(events), "ended"), "the last event stays the current one");
    ringfence_events_free(events);
    ringfence_events_free(slow);
}

static void refused_forks(void)
{
    ringfence_container *container = start("{\"pids\": 8}");
    if (!container) {
        skip("refused forks", "pids cannot be limited here");
        return;
    }
    ringfence_events *events = events_of(container, "{\"kinds\": [\"pids_max\"]}");
    run_python(container, "import os, time\n"
                          "for _ in range(20):\n"
                          "    try:\n"
                          "        if os.fork() == 0: time.sleep(0.2); os._exit(0)\n"
                          "    except OSError: pass\n");
    ok(events && next_of(events, RINGFENCE_EVENT_KIND_PIDS_MAX) && ringfence_events_count(events) >= 10, "refused forks are counted");
    ringfence_events_free(events);
    ringfence_container_close(container, -1, NULL);
    ringfence_container_free(container);
}

static uint64_t figure(ringfence_container *container, const char *name)
{
    uint64_t value = 0;
    if (ringfence_container_usage_u64(container, name, &value, &err) < 0)
        explain();
    return value;
}

static void limits_of_memory(void)
{
    ringfence_container *container = start("{\"memory\": \"40M\", \"swap\": 0}");
    if (!container) {
        skip("limits of memory", "memory cannot be limited here");
        return;
    }
    ringfence_events *events = events_of(container, "{\"kinds\": [\"memory_max\", \"oom\"]}");
    ok(run_python(container, "x = bytearray(200 << 20)") == 9, "killed at the hard limit");
    uint64_t hits = figure(container, "memory_limit_hits"), told = 0;
    int oom = 0, more = 1;
    while ((told < hits || !oom) && more && (more = ringfence_events_next(events, 60000, &err) == 1)) {
        if (ringfence_events_kind(events) == RINGFENCE_EVENT_KIND_MEMORY_MAX)
            told = ringfence_events_total(events);
        oom |= ringfence_events_kind(events) == RINGFENCE_EVENT_KIND_OOM;
    }
    ok(hits >= 1 && told == hits, "each hit of the hard limit is told");
    ok(oom, "and that nothing was left to reclaim");
    ringfence_events_free(events);
    ringfence_container_close(container, -1, NULL);
    ringfence_container_free(container);

    container = start("{\"memory\": \"48M\", \"memory_high\": \"24M\", \"swap\": 0}");
    if (!container) {
        skip("the soft limit of memory", "there is none here");
        return;
    }
    events = events_of(container, "{\"kinds\": [\"memory_high\"]}");
    ok(run_python(container, "x = bytearray(28 << 20)") == 0, "not killed at the soft limit");
    ok(next_of(events, RINGFENCE_EVENT_KIND_MEMORY_HIGH) && figure(container, "memory_high_hits") >= ringfence_events_total(events) &&
           ringfence_events_total(events) >= 1,
       "the soft limit of memory");
    ringfence_events_free(events);
    ringfence_container_close(container, -1, NULL);
    ringfence_container_free(container);
}

static void freezes(void)
{
    ringfence_container *container = start("{}");
    ringfence_events *events = events_of(container, NULL);
    if (!has_kind(events, "frozen")) {
        skip("freezes", "no cgroup v2 tree for this caller");
    } else {
        ok(ringfence_container_freeze(container, &err) == 0 && ringfence_container_thaw(container, &err) == 0, "freeze and thaw");
        ok(ringfence_events_next(events, 10000, &err) == 1 && ringfence_events_kind(events) == RINGFENCE_EVENT_KIND_FROZEN, "frozen");
        ok(ringfence_events_next(events, 10000, &err) == 1 && ringfence_events_kind(events) == RINGFENCE_EVENT_KIND_THAWED, "thawed");
        /* Readable for nothing now and then, as is documented, but not for good. */
        int told = 0, quiet = 0;
        for (int i = 0; i < 100 && !quiet && !told; i++) {
            quiet = !readable(events, 0);
            told = !quiet && ringfence_events_next(events, 10, &err) != 0;
        }
        ok(quiet && !told, "nothing to read");
    }
    ringfence_container_kill(container, &err);
    ok(next_of(events, RINGFENCE_EVENT_KIND_ENDED), "ended");
    ringfence_events_free(events);
    ringfence_container_close(container, -1, NULL);
    ringfence_container_free(container);
}

static void pressure(void)
{
    ringfence_container *container = start("{}");
    ringfence_events *events = NULL;
    const char *options = "{\"kinds\": [], \"pressure\": [{\"resource\": \"io\", \"level\": \"full\", \"stall\": 2},"
                          " {\"resource\": \"cpu\", \"stall\": \"20ms\", \"window\": 2}]}";
    if (ringfence_container_events(container, options, &events, &err) < 0) {
        note("%s", ringfence_error_message(err));
        ok(failed(-1, RINGFENCE_KIND_UNSUPPORTED, NULL), "an error of its kind");
        skip("pressure", "not on this machine, or not for this caller");
    } else {
        run_python(container, "import os, time\n"
                              "for _ in range(os.cpu_count() + 1):\n"
                              "    if os.fork() == 0:\n"
                              "        end = time.monotonic() + 4\n"
                              "        while time.monotonic() < end: pass\n"
                              "        os._exit(0)\n"
                              "time.sleep(3)\n");
        ok(readable(events, 60000) && readable(events, 0), "readable, however often it is asked");
        ok(next_of(events, RINGFENCE_EVENT_KIND_PRESSURE), "pressure is told");
        ok(!strcmp(ringfence_events_resource(events), "cpu") && !strcmp(ringfence_events_level(events), "some") &&
               ringfence_events_threshold(events) == 1,
           "its resource, level, threshold");
        ringfence_events_free(events);
    }
    ringfence_container_close(container, -1, NULL);
    ringfence_container_free(container);
}

static volatile pid_t waiter;

/* Until the other thread waits in poll(2). */
static void until_it_polls(void)
{
    char path[64], text[16];
    for (;;) {
        snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)waiter);
        FILE *file = waiter ? fopen(path, "r") : NULL;
        int polls = file && fgets(text, sizeof text, file) && !strncmp(text, "7 ", 2);
        if (file)
            fclose(file);
        if (polls)
            break;
        usleep(1000);
    }
    waiter = 0;
}

static void *wait_for_one(void *events)
{
    waiter = gettid();
    ringfence_error *mine = NULL;
    int result = ringfence_events_next(events, -1, &mine);
    long kind = result == -1 ? ringfence_error_kind(mine) : 0;
    ringfence_error_free(mine);
    return (void *)kind;
}

static void misuse(void)
{
    ringfence_container *container = start("{}");
    ringfence_events *events = NULL;
    static const struct {
        const char *options, *field;
    } bad[] = {
        {"[]", "options"},
        {"{\"kinds\": [\"oomkill\"]}", "kinds[0]"},
        {"{\"kinds\": [\"pressure\"]}", "kinds[0]"},
        {"{\"pressure\": [{\"resource\": \"io\", \"stall\": 3}]}", "pressure[0].stall"},
        {"{\"pressure\": [{\"resource\": \"io\", \"stall\": 0.1, \"window\": 20}]}", "pressure[0].window"},
        {"{\"pressure\": [{\"resource\": \"irq\", \"stall\": 1}]}", "pressure[0].resource"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ok(failed(ringfence_container_events(container, bad[i].options, &events, &err), RINGFENCE_KIND_INVALID_SPEC, bad[i].field),
           "refused: %s", bad[i].options);
    ok(failed(ringfence_container_events(container, "{", &events, &err), RINGFENCE_KIND_INVALID_SPEC, NULL), "no JSON");
    ok(failed(ringfence_container_events(NULL, NULL, &events, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no container");
    ok(failed(ringfence_container_events(container, NULL, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no place");
    ok(failed(ringfence_events_next(NULL, 0, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no reader");
    ok(ringfence_events_fd(NULL) == -1 && ringfence_events_kind(NULL) == 0 && ringfence_events_is_over(NULL) == -1, "NULL");
    ringfence_events_free(NULL);

    events = events_of(container, NULL);
    ok(failed(ringfence_events_next(events, -2, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "a bad timeout");
    pid_t child = fork();
    if (child == 0) {
        ringfence_error *mine = NULL;
        int good = ringfence_events_next(events, -1, &mine) == -1 && ringfence_error_kind(mine) == RINGFENCE_KIND_FORKED_CHILD &&
                   ringfence_events_fd(events) == -1;
        ringfence_events_free(events);
        _exit(!good);
    }
    int status = -1;
    ok(waitpid(child, &status, 0) == child && status == 0, "a forked child is refused");

    pthread_t thread;
    void *kind = NULL;
    pthread_create(&thread, NULL, wait_for_one, events);
    until_it_polls();
    ok(ringfence_events_cancel(events, &err) == 0, "cancel");
    pthread_join(thread, &kind);
    ok((long)kind == RINGFENCE_KIND_CLOSED, "who waits is told that it was cancelled");
    ringfence_events_free(events);

    events = events_of(container, NULL);
    pthread_create(&thread, NULL, wait_for_one, events);
    until_it_polls();
    ringfence_events_free(events);
    pthread_join(thread, &kind);
    ok((long)kind == RINGFENCE_KIND_CLOSED, "and when the reader is freed");
    ok(!strcmp(ringfence_event_kind_name(RINGFENCE_EVENT_KIND_PIDS_MAX), "pids_max") && !ringfence_event_kind_name(0), "names of kinds");
    ringfence_container_close(container, -1, NULL);
    ok(failed(ringfence_container_events(container, NULL, &events, &err), RINGFENCE_KIND_CLOSED, NULL), "a closed container");
    ringfence_container_free(container);
}

int main(void)
{
    counts();
    limits_of_memory();
    refused_forks();
    freezes();
    pressure();
    misuse();
    return done();
}
