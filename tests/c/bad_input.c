/* Wrong arguments: each gives the right error and leaves nothing; none crashes.
 *
 * tests/run: timeout=120
 */
#include <errno.h>
#include <ringfence.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

static ringfence_error *err;

static int is(int failed, ringfence_kind kind)
{
    int good = failed && ringfence_error_kind(err) == kind && *ringfence_error_message(err);
    /* The argument has a name. */
    good = good && (kind != RINGFENCE_KIND_INVALID_ARGUMENT || ringfence_error_field(err));
    if (!good)
        note("failed %d: %s: %s", failed, ringfence_error_kind_name(err), ringfence_error_message(err));
    ringfence_error_free(err);
    err = NULL;
    return good;
}

/* Each call with NULL in one place, with and without a place for the error. */
#define refuses(call)                                                                                                          \
    do {                                                                                                                       \
        ringfence_error **place = &err;                                                                                        \
        int first = is((call) == -1, RINGFENCE_KIND_INVALID_ARGUMENT);                                                         \
        place = NULL;                                                                                                          \
        ok(first && (call) == -1, "%s", #call);                                                                                \
    } while (0)

#define refuses_pointer(call)                                                                                                  \
    do {                                                                                                                       \
        ringfence_error **place = &err;                                                                                        \
        int first = is(!(call), RINGFENCE_KIND_INVALID_ARGUMENT);                                                              \
        place = NULL;                                                                                                          \
        ok(first && !(call), "%s", #call);                                                                                     \
    } while (0)

static int nothing(void *argument)
{
    return argument != NULL;
}

static void nulls(void)
{
    ringfence_spec *spec = ringfence_spec_new();
    ringfence_command *command = ringfence_command_new("true");
    ringfence_output *output = NULL;
    uint64_t number;

    refuses_pointer(ringfence_spec_copy(NULL, place));
    refuses(ringfence_spec_set(NULL, "memory", "1M", place));
    refuses(ringfence_spec_set(spec, NULL, "1M", place));
    refuses(ringfence_spec_set(spec, "memory", NULL, place));
    refuses(ringfence_spec_set_bytes(NULL, "memory", "1M", 2, place));
    refuses(ringfence_spec_set_bytes(spec, "memory", NULL, 2, place));
    refuses_pointer(ringfence_spec_get(NULL, "memory", place));
    refuses_pointer(ringfence_spec_get(spec, NULL, place));
    refuses(ringfence_spec_clear(NULL, "memory", place));
    refuses(ringfence_spec_clear(spec, NULL, place));
    refuses_pointer(ringfence_spec_from_json(NULL, place));
    refuses(ringfence_spec_merge_json(NULL, "{}", place));
    refuses(ringfence_spec_merge_json(spec, NULL, place));
    refuses_pointer(ringfence_spec_to_json(NULL, place));
    refuses_pointer(ringfence_plan_json(NULL, place));
    refuses(ringfence_run(NULL, NULL, 0, -1, &output, place));
    refuses(ringfence_run(spec, NULL, 0, -1, NULL, place));
    refuses(ringfence_run(spec, NULL, 5, -1, &output, place));
    refuses(ringfence_run(spec, NULL, 0, -2, &output, place));

    ringfence_container *container = NULL;
    ringfence_process *process = NULL;
    refuses(ringfence_container_start(NULL, &container, place));
    refuses(ringfence_container_start(spec, NULL, place));
    refuses(ringfence_container_by_name(NULL, &container, place));
    refuses(ringfence_container_by_name("x", NULL, place));
    refuses(ringfence_container_spawn(NULL, command, &process, place));
    refuses(ringfence_container_main(NULL, &process, place));
    refuses(ringfence_container_close(NULL, 0, place));
    refuses(ringfence_container_signal(NULL, 15, place));
    refuses(ringfence_container_kill(NULL, place));
    refuses(ringfence_container_stop(NULL, 0, place));
    refuses(ringfence_container_wait(NULL, 0, place));
    refuses(ringfence_container_freeze(NULL, place));
    refuses(ringfence_container_thaw(NULL, place));
    refuses(ringfence_container_usage_u64(NULL, "memory_peak", &number, place));
    refuses_pointer(ringfence_container_usage_json(NULL, place));
    refuses_pointer(ringfence_container_beancounters_json(NULL, place));
    refuses_pointer(ringfence_container_info_json(NULL, place));
    char bytes[4];
    refuses(ringfence_container_log_fd(NULL, place));
    refuses(ringfence_container_log_read(NULL, 0, bytes, sizeof bytes, place));
    refuses(ringfence_container_log_read(container, 0, NULL, 4, place));
    refuses(ringfence_container_ns_fd(NULL, "net", place));
    refuses(ringfence_container_join(NULL, "net", place));
    refuses_pointer(ringfence_container_processes_json(NULL, place));
    refuses(ringfence_container_pidfd_of(NULL, 1, place));
    refuses(ringfence_container_socket(NULL, 2, 1, 0, place));
    refuses(ringfence_container_listen(NULL, "127.0.0.1:80", 1, place));
    refuses(ringfence_container_listen(container, NULL, 1, place));
    refuses(ringfence_container_connect(NULL, "127.0.0.1:80", -1, place));
    refuses(ringfence_container_connect(container, NULL, -1, place));
    refuses(ringfence_container_open_path(NULL, "/", 0, 0, place));
    refuses(ringfence_container_open_path(container, NULL, 0, 0, place));
    refuses(ringfence_container_enter(NULL, "net", nothing, NULL, NULL, place));
    refuses(ringfence_container_enter(container, "net", NULL, NULL, NULL, place));
    refuses(ringfence_container_enter(container, NULL, nothing, NULL, NULL, place));
    refuses(ringfence_container_ns_fd(container, NULL, place));
    refuses(ringfence_namespace_fd(NULL, "net", place));
    refuses(ringfence_namespace_owner_fd(-1, place));
    refuses(ringfence_namespace_parent_fd(-1, place));
    refuses(ringfence_namespace_pid_in(-1, 1, place));
    refuses(ringfence_namespace_pid_from(-1, 1, place));
    refuses_pointer(ringfence_namespace_json(-1, place));
    ok(ringfence_container_name(NULL) == NULL && ringfence_container_id(NULL) == NULL, "container name and id of NULL");
    ok(ringfence_container_pid(NULL) == -1 && ringfence_container_pidfd(NULL) == -1 &&
           ringfence_container_events_fd(NULL) == -1 && ringfence_container_is_running(NULL) == -1,
       "container getters of NULL");

    ok(ringfence_command_new(NULL) == NULL, "a command without a program");
    refuses(ringfence_command_arg(NULL, "x", place));
    refuses(ringfence_command_arg(command, NULL, place));
    refuses(ringfence_command_env(NULL, "A", "b", place));
    refuses(ringfence_command_env(command, NULL, "b", place));
    refuses(ringfence_command_set(NULL, "cwd", "/", place));
    refuses(ringfence_command_set(command, NULL, "/", place));
    refuses(ringfence_command_set(command, "cwd", NULL, place));
    refuses(ringfence_command_stdin_fd(NULL, 0, place));
    refuses(ringfence_command_stdin_fd(command, -1, place));
    refuses(ringfence_command_stdout_fd(command, 987, place));
    refuses(ringfence_command_stderr_fd(command, -7, place));

    refuses(ringfence_process_wait(NULL, 0, place));
    refuses(ringfence_process_cancel_waits(NULL, place));
    refuses(ringfence_process_kill(NULL, 9, place));
    refuses(ringfence_process_resize(NULL, 1, 1, place));
    refuses(ringfence_process_communicate(NULL, NULL, 0, 0, &output, place));
    refuses(ringfence_process_stdin_take(NULL, place));
    refuses(ringfence_process_stdout_take(NULL, place));
    refuses(ringfence_process_stderr_take(NULL, place));
    ok(ringfence_process_pid(NULL) == -1 && ringfence_process_pidfd(NULL) == -1 && ringfence_process_status_fd(NULL) == -1 &&
           ringfence_process_stdin_fd(NULL) == -1 && ringfence_process_stdout_fd(NULL) == -1 &&
           ringfence_process_stderr_fd(NULL) == -1 && ringfence_process_terminal_fd(NULL) == -1,
       "process descriptors of NULL");
    ok(ringfence_process_exit_code(NULL) == -1 && ringfence_process_signal(NULL) == -1 && ringfence_process_core(NULL) == -1 &&
           ringfence_process_reason(NULL) == -1,
       "process status of NULL");
    ok(!ringfence_output_stdout(NULL) && !ringfence_output_stderr(NULL) && !ringfence_output_stdout_len(NULL) &&
           !ringfence_output_stderr_len(NULL) && ringfence_output_exit_code(NULL) == -1 && ringfence_output_signal(NULL) == -1 &&
           ringfence_output_core(NULL) == -1 && ringfence_output_reason(NULL) == 0,
       "output of NULL");
    ok(!ringfence_error_kind(NULL) && !ringfence_error_kind_name(NULL) && !ringfence_error_errno(NULL) &&
           !ringfence_error_field(NULL) && !ringfence_error_step(NULL) && !ringfence_error_path(NULL) &&
           !ringfence_error_hint(NULL) && !strcmp(ringfence_error_message(NULL), "no error") && !ringfence_error_json(NULL),
       "error of NULL");
    ok(ringfence_reason_name(0) == NULL && ringfence_reason_name(-5) == NULL, "reasons that do not exist");
    ringfence_spec_free(NULL);
    ringfence_command_free(NULL);
    ringfence_container_free(NULL);
    ringfence_process_free(NULL);
    ringfence_output_free(NULL);
    ringfence_error_free(NULL);
    ringfence_string_free(NULL);
    ok(1, "free of NULL");
    ringfence_spec_free(spec);
    ringfence_command_free(command);
}

/* tests/sanitize: what is done here on purpose (reading freed objects, filling memory) is what it looks for. */
static int sanitized(void)
{
    return getenv("RINGFENCE_TEST_SANITIZED") != NULL;
}

static void wrong_objects(void)
{
    ringfence_spec *spec = ringfence_spec_new();
    ringfence_command *command = ringfence_command_new("true");
    ringfence_container *container = NULL;
    refuses(ringfence_spec_set((ringfence_spec *)command, "memory", "1M", place));
    refuses(ringfence_command_arg((ringfence_command *)spec, "x", place));
    refuses(ringfence_container_kill((ringfence_container *)spec, place));
    refuses(ringfence_spec_set((ringfence_spec *)((char *)spec + 1), "memory", "1M", place));
    static char zeros[256] __attribute__((aligned(16)));
    refuses(ringfence_process_wait((ringfence_process *)zeros, 0, place));
    ringfence_spec_free((ringfence_spec *)command);
    ringfence_container_free((ringfence_container *)zeros);
    ok(ringfence_command_arg(command, "x", NULL) == 0, "free of an object of another type does nothing");

    ringfence_command_free(command);
    if (!sanitized()) {
        refuses(ringfence_command_arg(command, "x", place));
        ringfence_command_free(command);
        ok(1, "a second free is recognised");
    }

    ok(ringfence_spec_set(spec, "argv", "true", NULL) == 0, "a spec");
    if (!ok(ringfence_container_start(spec, &container, &err) == 0, "a container: %s", ringfence_error_message(err)))
        return;
    ringfence_container_close(container, 5000, NULL);
    ok(is(ringfence_container_freeze(container, &err) == -1, RINGFENCE_KIND_CLOSED), "freeze after close");
    ok(is(ringfence_container_signal(container, 15, &err) == -1, RINGFENCE_KIND_CLOSED), "signal after close");
    int fd = ringfence_container_ns_fd(container, "net", &err);
    ok(is(fd == -1, RINGFENCE_KIND_CLOSED), "a namespace after close");
    ringfence_container_free(container);
    if (!sanitized()) {
        refuses(ringfence_container_kill(container, place));
        ringfence_container_free(container);
        ok(1, "a second free of a container is recognised");
    }
    ringfence_spec_free(spec);
}

static void texts(void)
{
    ringfence_spec *spec = ringfence_spec_new();
    ringfence_container *container = (ringfence_container *)spec;
    ok(is(ringfence_spec_set(spec, "mem\xffory", "1M", &err) == -1, RINGFENCE_KIND_INVALID_ARGUMENT), "a key that is not UTF-8");
    ok(is(!ringfence_spec_from_json("{\"a\xff\":1}", &err), RINGFENCE_KIND_INVALID_ARGUMENT), "JSON that is not UTF-8");
    int failed = ringfence_container_by_name("a/b", &container, &err) == -1;
    int as_argument = ringfence_error_kind(err) == RINGFENCE_KIND_INVALID_ARGUMENT;
    ok(is(failed, as_argument ? RINGFENCE_KIND_INVALID_ARGUMENT : RINGFENCE_KIND_INVALID_SPEC), "a name with a slash");
    ok(is(ringfence_spec_set_bytes(spec, "memory", "", SIZE_MAX / 5, &err) == -1, RINGFENCE_KIND_EXHAUSTED), "an absurd length");
    ok(container == (ringfence_container *)spec, "the output is not touched on failure");
    ok(ringfence_spec_set(spec, "argv", "\xff\xfe", &err) == 0, "an argument may be any bytes");
    char *text = ringfence_spec_to_json(spec, &err);
    ringfence_spec *again = ringfence_spec_from_json(text, &err);
    char *text2 = ringfence_spec_to_json(again, &err);
    ok(text && text2 && !strcmp(text, text2), "and survives JSON: %s", text ? text : "NULL");
    ringfence_string_free(text);
    ringfence_string_free(text2);
    ringfence_spec_free(again);

    size_t size = 1 << 20;
    char *long_text = malloc(size + 1);
    memset(long_text, 'x', size);
    long_text[size] = 0;
    ringfence_spec_clear(spec, "argv", NULL);
    ringfence_spec_set(spec, "argv", "true", NULL);
    ringfence_spec_set(spec, "argv", long_text, NULL);
    ok(is(ringfence_container_start(spec, &container, &err) == -1, RINGFENCE_KIND_INVALID_SPEC), "an argument of 1 MiB");
    ok(is(ringfence_spec_set(spec, long_text, "x", &err) == -1, RINGFENCE_KIND_INVALID_SPEC), "a key of 1 MiB");
    memset(long_text, '[', size);
    ok(is(!ringfence_spec_from_json(long_text, &err), RINGFENCE_KIND_INVALID_SPEC), "JSON of a million brackets");
    free(long_text);
    ringfence_spec_free(spec);
}

/* The program has no children, so what a child finds is told by its exit status: what it finds wrong, it also notes. */
static int child_says(int (*ask)(void *), void *argument)
{
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        _exit(ask(argument));
    }
    int status = -1;
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status))
        note("the child ended with signal %d", WTERMSIG(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

struct objects {
    ringfence_spec *spec;
    ringfence_container *container;
    ringfence_process *process;
};

static int refused_in_child(int result)
{
    int good = result == -1 && errno == ECHILD && (!err || ringfence_error_kind(err) == RINGFENCE_KIND_FORKED_CHILD);
    if (!good)
        note("in the child: result %d, errno %d, %s", result, errno, ringfence_error_message(err));
    ringfence_error_free(err);
    err = NULL;
    errno = 0;
    return good;
}

static int in_child(void *argument)
{
    struct objects *o = argument;
    ringfence_output *output = NULL;
    uint64_t number;
    int bad = 0;
    bad += !refused_in_child(ringfence_container_kill(o->container, &err));
    bad += !refused_in_child(ringfence_container_close(o->container, 100, &err));
    bad += !refused_in_child(ringfence_container_wait(o->container, -1, &err));
    bad += !refused_in_child(ringfence_container_usage_u64(o->container, "memory_peak", &number, &err));
    bad += !refused_in_child(ringfence_container_pid(o->container));
    bad += !refused_in_child(ringfence_process_wait(o->process, -1, &err));
    bad += !refused_in_child(ringfence_process_kill(o->process, SIGKILL, &err));
    bad += !refused_in_child(ringfence_process_pidfd(o->process));
    /* Plain memory keeps working, and the child is a program with containers of its own. */
    ringfence_spec *copy = ringfence_spec_copy(o->spec, NULL);
    bad += !copy || ringfence_spec_merge_json(copy, "{\"argv\":[\"sh\",\"-c\",\"exit 4\"]}", NULL) != 0;
    if (ringfence_run(copy, NULL, 0, 10000, &output, &err) < 0 || ringfence_output_exit_code(output) != 4) {
        note("in the child: %s", ringfence_error_message(err));
        bad++;
    }
    ringfence_output_free(output);
    ringfence_spec_free(copy);
    ringfence_process_free(o->process);
    ringfence_container_free(o->container);
    ringfence_spec_free(o->spec);
    return bad;
}

static void after_fork(void)
{
    struct objects o = {ringfence_spec_from_json("{\"argv\":[\"sleep\",\"1000\"]}", &err), NULL, NULL};
    if (!ok(o.spec && ringfence_container_start(o.spec, &o.container, &err) == 0 &&
                ringfence_container_main(o.container, &o.process, &err) == 0,
            "a running container: %s", ringfence_error_message(err)))
        return;
    ok(child_says(in_child, &o) == 0, "in a forked child its calls are refused with ECHILD, and free returns");
    ok(ringfence_container_is_running(o.container) == 1, "the container does not notice");
    ok(ringfence_process_wait(o.process, 0, &err) == 0 && !err, "its process neither");
    ok(ringfence_container_close(o.container, 5000, &err) == 0, "close in the parent");
    ringfence_process_free(o.process);
    ringfence_container_free(o.container);
    ringfence_spec_free(o.spec);
}

/* Takes all memory that a limit leaves, then calls: no crash, a static error. */
static int without_memory(void *unused)
{
    (void)unused;
    ringfence_spec *spec = ringfence_spec_new();
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = 1;
    setrlimit(RLIMIT_AS, &limit);
    for (size_t size = 1 << 20; size >= 16; size /= 2) {
        void **block;
        while ((block = malloc(size)))
            __asm__ volatile("" : : "r"(block) : "memory");
    }
    int bad = 0;
    for (int i = 0; i < 3; i++) {
        bad += ringfence_spec_set(spec, "memory", "64M", &err) != -1 || errno != ENOMEM;
        bad += ringfence_error_kind(err) != RINGFENCE_KIND_EXHAUSTED || ringfence_error_errno(err) != ENOMEM;
        bad += !strstr(ringfence_error_message(err), "ENOMEM") || !strstr(ringfence_error_json(err), "exhausted");
        ringfence_error_free(err);
        err = NULL;
    }
    bad += ringfence_spec_new() != NULL;
    bad += ringfence_doctor_json(NULL) != NULL;
    ringfence_spec_free(spec);
    return bad;
}

static void memory(void)
{
    ok(child_says(without_memory, NULL) == 0, "out of memory gives a static error");
}

int main(void)
{
    nulls();
    wrong_objects();
    texts();
    if (!sanitized())
        memory();
    after_fork();
    return done();
}
