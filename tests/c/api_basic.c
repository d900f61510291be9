/* Every object and call once, as a program would use them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <ringfence.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "tap.h"

static ringfence_error *err;

/* Success of a call that has set nothing. */
static int fine(int result)
{
    if (err) {
        note("%s", ringfence_error_message(err));
        ringfence_error_free(err);
        err = NULL;
        return 0;
    }
    return result >= 0;
}

/* Failure of a kind; the error is freed. */
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

static int is_json(char *text, const char *key)
{
    json whole = {text, text ? strlen(text) : 0};
    int good = fine(0) && text && json_get(whole, key).at;
    if (!good)
        note("%s", text ? text : "NULL");
    ringfence_string_free(text);
    return good;
}

static int readable(int fd, int milliseconds)
{
    struct pollfd one = {fd, POLLIN, 0};
    return poll(&one, 1, milliseconds) == 1;
}

static ringfence_spec *spec_of(const char *text)
{
    ringfence_spec *spec = ringfence_spec_from_json(text, &err);
    if (!spec)
        note("%s", ringfence_error_message(err));
    return spec;
}

static ringfence_container *start(const char *text)
{
    ringfence_spec *spec = spec_of(text);
    ringfence_container *container = NULL;
    fine(ringfence_container_start(spec, &container, &err));
    ringfence_spec_free(spec);
    return container;
}

static ringfence_process *spawn(ringfence_container *container, const char *script, const char *stdio)
{
    ringfence_command *command = ringfence_command_new("sh");
    ringfence_process *process = NULL;
    int good = fine(ringfence_command_arg(command, "-c", &err)) && fine(ringfence_command_arg(command, script, &err));
    if (good && stdio)
        good = fine(ringfence_command_set(command, "stdin", stdio, &err)) &&
               fine(ringfence_command_set(command, "stdout", stdio, &err)) &&
               fine(ringfence_command_set(command, "stderr", stdio, &err));
    if (good)
        fine(ringfence_container_spawn(container, command, &process, &err));
    ringfence_command_free(command);
    return process;
}

static void versions(void)
{
    ok(!strncmp(ringfence_version(), "0.1.", 4), "the version is %s", ringfence_version());
    ok(ringfence_version_number() == RINGFENCE_VERSION_NUMBER, "library and header have the same number");
    ok(is_json(ringfence_schema_json(&err), "properties"), "the schema is JSON");
}

static void specs(void)
{
    ringfence_spec *spec = ringfence_spec_new();
    ok(spec != NULL, "a spec");
    ok(fine(ringfence_spec_set(spec, "memory", "256M", &err)), "set a size");
    char *text = ringfence_spec_get(spec, "memory", &err);
    ok(text && !strcmp(text, "268435456"), "get it as bytes: %s", text ? text : "NULL");
    ringfence_string_free(text);
    ok(fine(ringfence_spec_set(spec, "argv", "echo", &err)) && fine(ringfence_spec_set(spec, "argv", "a b", &err)),
       "a list grows by one element per call");
    text = ringfence_spec_get(spec, "argv", &err);
    ok(text && !strcmp(text, "[\"echo\",\"a b\"]"), "the list: %s", text ? text : "NULL");
    ringfence_string_free(text);
    ok(fine(ringfence_spec_set(spec, "env", "A=b=c", &err)), "a map takes KEY=VALUE");
    text = ringfence_spec_get(spec, "env", &err);
    ok(text && !strcmp(text, "{\"A\":\"b=c\"}"), "the map: %s", text ? text : "NULL");
    ringfence_string_free(text);
    ok(fine(ringfence_spec_set_bytes(spec, "files", "/etc/key=a\0b", 12, &err)), "bytes with NUL in a file");

    ringfence_spec *copy = ringfence_spec_copy(spec, &err);
    ok(fine(ringfence_spec_clear(spec, "memory", &err)), "clear");
    text = ringfence_spec_get(spec, "memory", &err);
    ok(text && !*text, "nothing is left of it");
    ringfence_string_free(text);
    text = ringfence_spec_get(copy, "memory", &err);
    ok(text && !strcmp(text, "268435456"), "the copy is another spec");
    ringfence_string_free(text);

    ok(fine(ringfence_spec_merge_json(copy, "{\"hostname\":\"db\",\"env\":{\"C\":\"d\"}}", &err)), "merge JSON");
    text = ringfence_spec_to_json(copy, &err);
    ok(text && strstr(text, "\"A\":\"b=c\"") && strstr(text, "\"C\":\"d\"") && strstr(text, "\"hostname\":\"db\""),
       "a map is merged: %s", text ? text : "NULL");
    ringfence_spec *again = ringfence_spec_from_json(text, &err);
    char *text2 = ringfence_spec_to_json(again, &err);
    ok(text && text2 && !strcmp(text, text2), "to JSON and back");
    ringfence_string_free(text);
    ringfence_string_free(text2);
    ringfence_spec_free(again);

    ok(failed(ringfence_spec_set(spec, "memroy", "1M", &err), RINGFENCE_KIND_INVALID_SPEC, "memroy"), "an unknown field");
    ok(failed(ringfence_spec_set(spec, "memory", "lots", &err), RINGFENCE_KIND_INVALID_SPEC, "memory"), "a bad value");
    ok(failed(ringfence_spec_set(spec, "hooks", "x", &err), RINGFENCE_KIND_NOT_AVAILABLE, "hooks"), "a later field");
    ok(failed(ringfence_spec_merge_json(spec, "{", &err), RINGFENCE_KIND_INVALID_SPEC, NULL), "broken JSON");
    text = ringfence_spec_keys(&err);
    ok(text && strstr(text, "\"hostname\"") && strstr(text, "\"memory\""), "the keys");
    ringfence_string_free(text);
    ringfence_spec_free(spec);
    ringfence_spec_free(copy);
}

static void errors(void)
{
    ringfence_spec *spec = ringfence_spec_new();
    errno = 0;
    ok(ringfence_spec_set(spec, "memroy", "1M", &err) == -1 && errno == EINVAL, "errno is set too");
    ok(!strcmp(ringfence_error_kind_name(err), "invalid_spec"), "kind by name");
    ok(strstr(ringfence_error_message(err), "memroy") != NULL, "the message: %s", ringfence_error_message(err));
    ok(strstr(ringfence_error_json(err), "\"kind\":\"invalid_spec\"") != NULL, "as JSON");
    ok(ringfence_error_path(err) == NULL, "no path where there is none");
    ringfence_error_free(err);
    err = NULL;
    ok(ringfence_spec_set(spec, "memroy", "1M", NULL) == -1, "without a place for the error");
    ringfence_spec_free(spec);
}

static void run(void)
{
    ringfence_spec *spec = spec_of("{\"argv\":[\"sh\",\"-c\",\"cat; echo err >&2; exit 3\"],\"stdin\":\"pipe\","
                                   "\"stdout\":\"pipe\",\"stderr\":\"pipe\"}");
    ringfence_output *output = NULL;
    ok(fine(ringfence_run(spec, "a\0b", 3, 20000, &output, &err)), "run");
    ok(ringfence_output_stdout_len(output) == 3 && !memcmp(ringfence_output_stdout(output), "a\0b", 4), "its stdout");
    ok(ringfence_output_stderr_len(output) == 4 && !strcmp(ringfence_output_stderr(output), "err\n"), "its stderr");
    ok(ringfence_output_exit_code(output) == 3 && ringfence_output_signal(output) == 0, "its exit code");
    ok(ringfence_output_core(output) == 0 && ringfence_output_reason(output) == RINGFENCE_REASON_EXITED, "its reason");
    ringfence_output_free(output);
    ringfence_spec_free(spec);

    spec = spec_of("{\"argv\":[\"sleep\",\"1000\"]}");
    output = NULL;
    ok(failed(ringfence_run(spec, NULL, 0, 300, &output, &err), RINGFENCE_KIND_TIMED_OUT, NULL) && !output,
       "run with a timeout, the output is not touched");
    ringfence_spec_free(spec);
}

/* The example of the documentation. */
static void example(void)
{
    ringfence_spec *spec = ringfence_spec_new();
    ringfence_command *cmd = ringfence_command_new("sh");
    ringfence_container *c = NULL;
    ringfence_process *p = NULL;
    int result = ringfence_spec_set(spec, "hostname", "db", &err) < 0 || ringfence_container_start(spec, &c, &err) < 0 ||
                 ringfence_command_arg(cmd, "-c", &err) < 0 || ringfence_command_arg(cmd, "exit 5", &err) < 0 ||
                 ringfence_container_spawn(c, cmd, &p, &err) < 0 || ringfence_process_wait(p, 5000, &err) < 0;
    ok(fine(-result), "start, spawn, wait");
    ok(ringfence_process_exit_code(p) == 5, "the exit code");
    ringfence_process_free(p);
    ringfence_command_free(cmd);
    ringfence_container_free(c);
    ringfence_spec_free(spec);
}

static void container(void)
{
    ringfence_container *c = start("{\"name\":\"api-basic\",\"hostname\":\"db\"}");
    if (!ok(c != NULL, "a container without a main process"))
        return;
    ok(!strcmp(ringfence_container_name(c), "api-basic") && *ringfence_container_id(c), "name and id");
    ok(ringfence_container_pid(c) > 0 && kill(ringfence_container_pid(c), 0) == 0, "the pid of its pid 1");
    ok(ringfence_container_pidfd(c) >= 0 && !readable(ringfence_container_pidfd(c), 0), "the pidfd");
    ok(ringfence_container_is_running(c) == 1, "it runs");
    ok(!readable(ringfence_container_events_fd(c), 0), "no end to be seen");
    ok(ringfence_container_wait(c, 0, &err) == 0 && fine(0), "waiting with timeout 0 looks");
    ok(is_json(ringfence_container_info_json(c, &err), "idmap"), "what was chosen is JSON");
    char *usage = ringfence_container_usage_json(c, &err);
    ok(usage ? is_json(usage, "memory_current") : failed(-1, RINGFENCE_KIND_UNSUPPORTED, NULL), "its usage as JSON, or why not");
    uint64_t value = 0;
    int result = ringfence_container_usage_u64(c, "pids_current", &value, &err);
    ok(result == 0 ? value >= 1 : failed(result, RINGFENCE_KIND_UNSUPPORTED, NULL), "one figure, or why not");
    value = 7;
    ok(failed(ringfence_container_usage_u64(c, "no_such", &value, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL) && value == 7,
       "a figure that does not exist");
    int fd = ringfence_container_ns_fd(c, "uts", &err);
    ok(fine(fd) && fcntl(fd, F_GETFD) == FD_CLOEXEC, "a namespace descriptor");
    close(fd);
    ok(failed(ringfence_container_ns_fd(c, "disk", &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "an unknown namespace");
    ringfence_process *p = NULL;
    ok(failed(ringfence_container_main(c, &p, &err), RINGFENCE_KIND_NOT_FOUND, NULL), "there is no main process");

    ringfence_container *again = NULL;
    ok(fine(ringfence_container_by_name("api-basic", &again, &err)), "found by name");
    ok(again && !strcmp(ringfence_container_id(again), ringfence_container_id(c)), "the same container");
    ringfence_container_free(again);
    ok(ringfence_container_is_running(c) == 1, "freeing the second handle does not end it");
    again = NULL;
    ok(failed(ringfence_container_by_name("no-such-name", &again, &err), RINGFENCE_KIND_NOT_FOUND, NULL), "an unknown name");
    ringfence_spec *spec = spec_of("{\"name\":\"api-basic\"}");
    ok(failed(ringfence_container_start(spec, &again, &err), RINGFENCE_KIND_ALREADY_EXISTS, NULL), "the name is taken");
    ringfence_spec_free(spec);
    char *list = ringfence_ls_json(&err);
    ok(fine(0) && list && strstr(list, "\"api-basic\""), "it is listed");
    ringfence_string_free(list);

    ok(fine(ringfence_container_close(c, 5000, &err)), "close");
    ok(fine(ringfence_container_close(c, 5000, &err)), "close again");
    ok(ringfence_container_is_running(c) == 0, "it does not run");
    ok(readable(ringfence_container_events_fd(c), 1000), "the end can be polled");
    ringfence_command *command = ringfence_command_new("true");
    ok(failed(ringfence_container_spawn(c, command, &p, &err), RINGFENCE_KIND_CLOSED, NULL), "no spawn after close");
    ringfence_command_free(command);
    ringfence_container_free(c);
}

static void life(void)
{
    ringfence_container *c = start("{\"argv\":[\"sleep\",\"1000\"],\"stop_timeout\":5}");
    ringfence_process *main_process = NULL;
    if (!ok(c && fine(ringfence_container_main(c, &main_process, &err)), "a main process"))
        return;
    ok(ringfence_process_reason(main_process) == 0 && ringfence_process_exit_code(main_process) == -1, "it runs");
    ok(fine(ringfence_container_stop(c, -1, &err)), "stop");
    ok(ringfence_process_signal(main_process) == SIGTERM, "ended by the stop signal");
    ok(ringfence_container_wait(c, 5000, &err) == 1 && fine(0), "the container has ended with it");
    ringfence_container_free(c);
    ok(ringfence_process_signal(main_process) == SIGTERM, "the process outlives its container's handle");
    ringfence_process_free(main_process);

    c = start("{\"argv\":[\"sh\",\"-c\",\"trap 'exit 44' USR1; echo ready; while :; do sleep 0.05; done\"],\"stdout\":\"pipe\"}");
    main_process = NULL;
    if (!ok(c && fine(ringfence_container_main(c, &main_process, &err)), "a main process with a handler"))
        return;
    char text[16];
    ok(read(ringfence_process_stdout_fd(main_process), text, sizeof text) == 6, "it is ready");
    ok(fine(ringfence_container_signal(c, SIGUSR1, &err)), "signal the main process");
    ok(ringfence_process_wait(main_process, 5000, &err) == 1 && ringfence_process_exit_code(main_process) == 44, "it acted");
    ringfence_process_free(main_process);
    ringfence_container_free(c);

    c = start("{}");
    ringfence_process *p = spawn(c, "sleep 1000", NULL);
    ok(p && fine(ringfence_container_kill(c, &err)), "kill");
    ok(ringfence_process_wait(p, 5000, &err) == 1 && ringfence_process_signal(p) == SIGKILL, "everything inside is killed");
    ringfence_process_free(p);
    ringfence_container_free(c);

    c = start("{}");
    p = spawn(c, "while :; do echo x; sleep 0.01; done", "pipe");
    if (p && ringfence_container_freeze(c, &err) == 0) {
        int fd = ringfence_process_stdout_fd(p);
        char buffer[65536];
        fcntl(fd, F_SETFL, O_NONBLOCK);
        usleep(50000);
        while (read(fd, buffer, sizeof buffer) > 0)
            ;
        ok(!readable(fd, 200), "freeze stops it");
        ok(fine(ringfence_container_thaw(c, &err)) && readable(fd, 2000), "thaw lets it run");
    } else {
        const char *why = ringfence_error_message(err);
        if (ringfence_error_kind(err) == RINGFENCE_KIND_UNSUPPORTED || ringfence_error_kind(err) == RINGFENCE_KIND_PERMISSION_DENIED)
            skip("freeze and thaw", why);
        else
            ok(0, "freeze: %s", why);
        ringfence_error_free(err);
        err = NULL;
    }
    ringfence_process_free(p);
    ringfence_container_free(c);
}

static void process(void)
{
    ringfence_container *c = start("{}");
    ringfence_process *p = spawn(c, "read line; echo \"<$line>\"; echo e >&2; exit 6", "pipe");
    if (!ok(p != NULL, "a process with pipes"))
        return;
    ok(ringfence_process_pid(p) > 0 && ringfence_process_pidfd(p) >= 0, "pid and pidfd");
    ok(ringfence_process_wait(p, 0, &err) == 0 && fine(0), "it runs");
    ok(!readable(ringfence_process_status_fd(p), 0) && !readable(ringfence_process_pidfd(p), 0), "no status yet");
    ok(write(ringfence_process_stdin_fd(p), "hi\n", 3) == 3, "write to it");
    char text[16] = "";
    ok(read(ringfence_process_stdout_fd(p), text, sizeof text) == 5 && !strcmp(text, "<hi>\n"), "read from it");
    ok(readable(ringfence_process_status_fd(p), 5000) && readable(ringfence_process_pidfd(p), 5000), "the end can be polled");
    ok(ringfence_process_wait(p, 5000, &err) == 1 && fine(0), "wait");
    ok(ringfence_process_wait(p, -1, &err) == 1 && fine(0), "and again");
    ok(ringfence_process_exit_code(p) == 6 && ringfence_process_signal(p) == 0 && ringfence_process_core(p) == 0, "its status");
    ok(!strcmp(ringfence_reason_name(ringfence_process_reason(p)), "exited"), "its reason");
    ok(fine(ringfence_process_kill(p, SIGKILL, &err)), "a signal after the end is fine");
    int out = ringfence_process_stdout_take(p, &err);
    ok(fine(out) && fcntl(out, F_GETFD) == FD_CLOEXEC, "take stdout");
    ok(failed(ringfence_process_stdout_take(p, &err), RINGFENCE_KIND_NOT_FOUND, NULL), "once");
    ok(ringfence_process_stdout_fd(p) == -1, "then there is none");
    ringfence_process_free(p);
    ok(read(out, text, sizeof text) == 0, "it is ours after the process is freed");
    close(out);

    p = spawn(c, "tr a-z A-Z; exit 1", "pipe");
    ringfence_output *output = NULL;
    ok(ringfence_process_communicate(p, "shout", 5, 5000, &output, &err) == 1 && fine(0), "communicate");
    ok(output && !strcmp(ringfence_output_stdout(output), "SHOUT") && ringfence_output_exit_code(output) == 1, "its output");
    ringfence_output_free(output);
    ringfence_process_free(p);

    p = spawn(c, "echo begin; sleep 0.6; echo end", "pipe");
    output = NULL;
    ok(ringfence_process_communicate(p, NULL, 0, 200, &output, &err) == 0 && fine(0) && !output, "communicate times out");
    ok(ringfence_process_communicate(p, NULL, 0, 5000, &output, &err) == 1 && fine(0) && output &&
           !strcmp(ringfence_output_stdout(output), "begin\nend\n"),
       "and keeps what was read");
    ringfence_output_free(output);
    ringfence_process_free(p);

    p = spawn(c, "exec sleep 1000", NULL); /* a shell would hold back SIGINT until its child has ended */
    ok(fine(ringfence_process_kill(p, SIGINT, &err)) && ringfence_process_wait(p, 5000, &err) == 1, "signal it");
    ok(ringfence_process_exit_code(p) == -1 && ringfence_process_signal(p) == SIGINT, "the signal that ended it");
    ringfence_process_free(p);

    ringfence_command *command = ringfence_command_new("sh");
    p = NULL;
    ok(fine(ringfence_command_arg(command, "-c", &err)) &&
           fine(ringfence_command_arg(command, "stty size; read x; stty size; tty", &err)) &&
           fine(ringfence_command_set(command, "terminal", "{\"rows\":10,\"cols\":20}", &err)) &&
           fine(ringfence_container_spawn(c, command, &p, &err)),
       "a process with a terminal");
    if (p) {
        char seen[256] = "";
        size_t length = 0;
        int fd = ringfence_process_terminal_fd(p);
        while (length < sizeof seen - 1 && !strstr(seen, "10 20") && readable(fd, 3000)) {
            ssize_t got = read(fd, seen + length, sizeof seen - 1 - length);
            length += got > 0 ? (size_t)got : 0;
            if (got <= 0)
                break;
        }
        ok(strstr(seen, "10 20") != NULL, "its size");
        ok(fine(ringfence_process_resize(p, 30, 40, &err)), "resize");
        ok(write(fd, "\n", 1) == 1, "type");
        while (length < sizeof seen - 1 && !strstr(seen, "/dev/pts/") && readable(fd, 3000)) {
            ssize_t got = read(fd, seen + length, sizeof seen - 1 - length);
            length += got > 0 ? (size_t)got : 0;
            if (got <= 0)
                break;
        }
        ok(strstr(seen, "30 40") && strstr(seen, "/dev/pts/"), "the new size, and its own devpts");
        ok(failed(ringfence_process_resize(p, 0, 70000, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "an absurd size");
        ringfence_process_free(p);
    }
    ringfence_command_free(command);

    command = ringfence_command_new("sh");
    p = NULL;
    ok(fine(ringfence_command_set(command, "argv", "-c", &err)) &&
           fine(ringfence_command_set(command, "argv", "echo $A ${TERM-none}; pwd; umask", &err)) &&
           fine(ringfence_command_env(command, "A", "b", &err)) && fine(ringfence_command_env(command, "TERM", NULL, &err)) &&
           fine(ringfence_command_set(command, "cwd", "/usr", &err)) &&
           fine(ringfence_command_set(command, "umask", "077", &err)) &&
           fine(ringfence_command_set(command, "stdout", "pipe", &err)) &&
           fine(ringfence_container_spawn(c, command, &p, &err)),
       "a command with environment, directory, umask");
    output = NULL;
    ok(p && ringfence_process_communicate(p, NULL, 0, 5000, &output, &err) == 1, "it runs");
    ok(output && !strcmp(ringfence_output_stdout(output), "b none\n/usr\n0077\n"), "it sees them");
    ringfence_output_free(output);
    ringfence_process_free(p);
    ok(failed(ringfence_command_set(command, "hostname", "x", &err), RINGFENCE_KIND_INVALID_SPEC, "hostname"),
       "a field that a command does not have");
    ok(failed(ringfence_command_env(command, "A=B", "c", &err), RINGFENCE_KIND_INVALID_ARGUMENT, "env"), "a bad variable");
    ringfence_command_free(command);
    command = ringfence_command_new("/no/such/program");
    p = NULL;
    ok(failed(ringfence_container_spawn(c, command, &p, &err), RINGFENCE_KIND_NOT_FOUND, NULL) && !p, "a missing program");
    ringfence_command_free(command);
    ringfence_container_free(c);
}

static void logs(void)
{
    ringfence_container *c = start("{\"argv\":[\"sh\",\"-c\",\"echo to the log; echo and err >&2\"]}");
    ringfence_process *p = NULL;
    char text[64] = "";
    fine(ringfence_container_main(c, &p, &err));
    ok(ringfence_process_wait(p, 5000, &err) == 1, "a main process with the default streams");
    ok(ringfence_container_log_read(c, 0, text, sizeof text - 1, &err) == 19 && fine(0), "its log can be read");
    ok(!strcmp(text, "to the log\nand err\n"), "both streams");
    ok(ringfence_container_log_read(c, 7, text, 3, &err) == 3 && !strncmp(text, "log", 3), "a part of it");
    ok(ringfence_container_log_read(c, 19, text, 3, &err) == 0 && fine(0), "its end");
    int fd = ringfence_container_log_fd(c, &err);
    ok(fine(fd) && pread(fd, text, 6, 0) == 6 && !strncmp(text, "to the", 6), "as a file");
    ok(lseek(fd, 0, SEEK_CUR) == 19, "its offset is the length");
    close(fd);
    ringfence_process_free(p);
    ringfence_container_free(c);
}

static int messages;
static char target_seen[64];

static void on_message(int level, const char *target, const char *message, void *user)
{
    if (level >= RINGFENCE_LOG_LEVEL_ERROR && level <= RINGFENCE_LOG_LEVEL_TRACE && *message && user == (void *)&messages)
        __atomic_add_fetch(&messages, 1, __ATOMIC_RELAXED);
    snprintf(target_seen, sizeof target_seen, "%s", target);
}

static void library_log(void)
{
    ok(fine(ringfence_set_log_callback(on_message, RINGFENCE_LOG_LEVEL_TRACE, &messages, &err)), "a log callback");
    ringfence_container_free(start("{\"argv\":[\"true\"]}"));
    ok(messages > 0 && !strncmp(target_seen, "ringfence", 9), "%d messages", messages);
    ok(fine(ringfence_set_log_callback(NULL, 0, NULL, &err)), "off");
    int before = messages, ends[2];
    ringfence_container_free(start("{\"argv\":[\"true\"]}"));
    ok(messages == before, "no message after that");
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return;
    ok(fine(ringfence_set_log_fd(ends[1], RINGFENCE_LOG_LEVEL_TRACE, &err)), "the log to a descriptor");
    ringfence_container_free(start("{\"argv\":[\"true\"]}"));
    ok(fine(ringfence_set_log_fd(-1, 0, &err)), "off");
    ok(readable(ends[0], 0), "it has lines");
    close(ends[0]);
    close(ends[1]);
    ok(failed(ringfence_set_log_fd(987, 3, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "a closed descriptor");
    ok(failed(ringfence_set_log_callback(on_message, 9, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "a level too high");
}

static void machine(void)
{
    ok(is_json(ringfence_doctor_json(&err), "findings"), "doctor");
    ringfence_spec *spec = spec_of("{\"argv\":[\"true\"],\"hostname\":\"db\"}");
    char *plan = ringfence_plan_json(spec, &err);
    ok(fine(0) && plan && strstr(plan, "hostname"), "a plan names the fields");
    ringfence_string_free(plan);
    ringfence_spec_free(spec);

    ringfence_container *c = start("{\"name\":\"api-detached\",\"detach\":true,\"argv\":[\"sh\",\"-c\",\"sleep 0.2; exit 12\"]}");
    ok(c != NULL, "a detached container");
    ringfence_container_free(c);
    c = NULL;
    ok(fine(ringfence_container_by_name("api-detached", &c, &err)), "found again by name");
    ok(c && ringfence_container_wait(c, 10000, &err) == 1 && fine(0), "its end");
    ringfence_process *p = NULL;
    ok(c && fine(ringfence_container_main(c, &p, &err)) && ringfence_process_exit_code(p) == 12, "its exit code");
    ringfence_process_free(p);
    ringfence_container_free(c);
    char *list = ringfence_ls_json(&err);
    ok(list && strstr(list, "\"api-detached\"") && strstr(list, "\"ended\""), "listed as ended");
    ringfence_string_free(list);
    ok(is_json(ringfence_gc_json(&err), "remaining"), "gc with a report");
    ok(fine(ringfence_gc(&err)), "gc");
    list = ringfence_ls_json(&err);
    ok(list && !strstr(list, "\"api-detached\""), "the record is gone");
    ringfence_string_free(list);
    ok(fine(ringfence_end_keepers(&err)), "end the keepers");
    c = start("{}");
    ok(c != NULL, "a start after that makes a new one");
    ringfence_container_free(c);
}

int main(void)
{
    versions();
    specs();
    errors();
    run();
    example();
    container();
    life();
    process();
    logs();
    library_log();
    machine();
    errno = 0;
    ok(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "this program never had a child");
    return done();
}
