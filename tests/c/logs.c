/* Logs line by line with a descriptor to poll, and readiness: what a test in C does with a service.
 *
 * tests/run: timeout=300 vm=root
 */
#include <errno.h>
#include <poll.h>
#include <ringfence.h>
#include <unistd.h>

#include "started.h"

static ringfence_logs *logs_of(ringfence_container *container, const char *options)
{
    ringfence_logs *logs = NULL;
    return ringfence_container_logs(container, options, &logs, &err) < 0 ? explain() : logs;
}

static int is_line(ringfence_logs *logs, const char *text)
{
    size_t length = 0;
    if (ringfence_logs_next(logs, 60000, &err) != 1) {
        explain();
        return 0;
    }
    const char *line = ringfence_logs_line(logs, &length);
    if (line && length == strlen(text) && !strcmp(line, text))
        return 1;
    note("%s", line);
    return 0;
}

static void close_and_free(ringfence_container *container)
{
    ok(ringfence_container_close(container, 60000, &err) == 0, "closed");
    ringfence_container_free(container);
}

static void reading(void)
{
    ringfence_container *container = start("{\"argv\": [\"cat\"], \"stdin\": \"pipe\", \"log_max\": 4096}");
    ringfence_process *process = NULL;
    ok(ringfence_container_main(container, &process, &err) == 0, "its main process");
    int input = ringfence_process_stdin_fd(process);
    uint64_t position = 9;
    ok(ringfence_container_log_position(container, &position, &err) == 0 && position == 0, "nothing is written");
    ok(ringfence_container_log_is_full(container, &err) == 0, "it is not full");
    ringfence_logs *logs = logs_of(container, "{\"follow\": true}");
    struct pollfd polled = {.fd = ringfence_logs_fd(logs), .events = POLLIN};
    ok(ringfence_logs_line(logs, NULL) == NULL, "no line yet");
    ok(ringfence_logs_next(logs, 0, &err) == 0 && poll(&polled, 1, 0) == 0, "nothing to read");
    ok(write(input, "one\ntwo\n", 8) == 8 && poll(&polled, 1, 60000) == 1, "the descriptor tells of it");
    ok(is_line(logs, "one\n") && is_line(logs, "two\n"), "two lines");
    ok(ringfence_logs_next(logs, 10, &err) == 0 && !ringfence_logs_is_over(logs), "the time passes");
    ok(ringfence_logs_position(logs) == 8, "behind them");
    ok(ringfence_container_log_position(container, &position, &err) == 0 && position == 8, "where the log ends");
    ringfence_logs *last = logs_of(container, "{\"tail\": 1}");
    ok(is_line(last, "two\n") && ringfence_logs_next(last, -1, &err) == 0 && ringfence_logs_is_over(last) == 1, "the last line");
    ringfence_logs_free(last);
    last = logs_of(container, "{\"since\": 4}");
    ok(is_line(last, "two\n"), "from a place on");
    ok(ringfence_logs_cancel(last, &err) == 0 && failed(ringfence_logs_next(last, -1, &err), RINGFENCE_KIND_CLOSED, NULL),
       "cancelled");
    ringfence_logs_free(last);

    char block[4080];
    memset(block, 'x', sizeof block);
    ok(write(input, block, sizeof block) == sizeof block, "almost all that there is room for");
    for (int i = 0; i < 60000 && position < 4088; i++) {
        usleep(1000);
        ringfence_container_log_position(container, &position, NULL);
    }
    ok(position == 4088 && write(input, block, 100) == 100, "and more");
    ok(ringfence_container_wait(container, 60000, &err) == 1 && ringfence_container_log_is_full(container, &err) == 1, "it is full");
    ok(ringfence_logs_next(logs, 60000, &err) == 1, "the rest");
    while (ringfence_logs_next(logs, -1, &err) == 1)
        ;
    ok(ringfence_logs_is_over(logs) == 1 && ringfence_logs_position(logs) >= 4088, "to the end");

    ringfence_logs *none = NULL;
    ok(failed(ringfence_container_logs(container, "{\"tial\": 1}", &none, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "options.tial"), "no such option");
    ok(failed(ringfence_container_logs(container, "{\"tail\": -1}", &none, &err), RINGFENCE_KIND_INVALID_ARGUMENT, "tail"), "no such tail");
    ok(failed(ringfence_container_logs(container, NULL, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no place");
    ok(failed(ringfence_container_logs(NULL, NULL, &none, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL) && !none, "no container");
    ok(failed(ringfence_logs_next(NULL, 0, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no reader");
    ok(failed(ringfence_logs_next(logs, -2, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no such timeout");
    ok(ringfence_logs_fd(NULL) == -1 && ringfence_logs_line(NULL, NULL) == NULL && ringfence_logs_is_over(NULL) == -1, "nothing of NULL");
    ringfence_logs_free(NULL);
    ringfence_process_free(process);
    close_and_free(container);
    ok(ringfence_logs_is_over(logs) == 1, "a reader outlives its container");
    ringfence_logs_free(logs);
    container = start("{}");
    ok(failed(ringfence_container_logs(container, NULL, &none, &err), RINGFENCE_KIND_NOT_FOUND, "stdout"), "no log");
    ok(failed(ringfence_container_log_position(container, &position, &err), RINGFENCE_KIND_NOT_FOUND, "stdout"), "nor a place in it");
    ok(failed(ringfence_container_log_is_full(container, &err), RINGFENCE_KIND_NOT_FOUND, NULL), "nor an end");
    close_and_free(container);
}

static void *closes(void *container)
{
    usleep(50000);
    ringfence_container_close(container, 60000, NULL);
    return NULL;
}

static void readiness(void)
{
    ringfence_container *container = start(
        "{\"argv\": [\"python3\", \"-uc\", \"import socket; s = socket.create_server(('127.0.0.1', 80)); print('up'); input()\"], \"stdin\": \"pipe\"}");
    ok(ringfence_container_wait_for(container, "{\"port\": 80, \"log\": \"^up$\", \"command\": [\"true\"]}", 60000, &err) == 1 && !err, "ready");
    ok(ringfence_container_wait_for(container, "{\"port\": [80, 81]}", 20, &err) == 0, "the time passes");
    const char *tail = ringfence_error_log_tail(err);
    ok(ringfence_error_kind(err) == RINGFENCE_KIND_TIMED_OUT && ringfence_error_errno(err) == ETIMEDOUT, "the error says so");
    ok(strstr(ringfence_error_message(err), "missing: port 81 (not open); there: port 80"), "and what is missing");
    ok(tail && !strcmp(tail, "up\n") && strstr(ringfence_error_json(err), "\"log_tail\":\"up\\n\""), "and has the log");
    ringfence_error_free(err);
    err = NULL;
    ok(ringfence_container_wait_for(container, "{\"path\": \"/no\"}", 0, NULL) == 0, "nobody wants the error");
    struct {
        const char *conditions, *field;
    } wrong[] = {{"{}", "conditions"},          {"{\"prot\": 80}", "conditions.prot"}, {"{\"port\": 0}", "port"},
                 {"{\"log\": \"(\"}", "log"},   {"{\"path\": \"x\"}", "path"},         {"{\"http\": \"https://127.0.0.1\"}", "http"},
                 {"{\"command\": 7}", "command"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ok(failed(ringfence_container_wait_for(container, wrong[i].conditions, -1, &err), RINGFENCE_KIND_INVALID_ARGUMENT, wrong[i].field), "%s", wrong[i].conditions);
    ok(failed(ringfence_container_wait_for(container, NULL, 0, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "NULL");
    ok(failed(ringfence_container_wait_for(container, "{\"port\": 80}", -2, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no such timeout");
    ok(failed(ringfence_container_wait_for(NULL, "{\"port\": 80}", 0, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no container");
    ok(ringfence_error_log_tail(NULL) == NULL, "no error has no log");
    close_and_free(container);

    container = start("{\"argv\": [\"sh\", \"-c\", \"echo broken >&2; exit 7\"]}");
    ok(ringfence_container_wait_for(container, "{\"port\": 80}", -1, &err) == -1, "it ends before it is ready");
    ok(strstr(ringfence_error_message(err), "exit code 7") && !strcmp(ringfence_error_log_tail(err), "broken\n"), "with its status and log");
    ok(failed(-1, RINGFENCE_KIND_CLOSED, "port"), "and the condition");
    close_and_free(container);

    pthread_t thread;
    container = start("{}");
    pthread_create(&thread, NULL, closes, container);
    ok(failed(ringfence_container_wait_for(container, "{\"port\": 80}", -1, &err), RINGFENCE_KIND_CLOSED, NULL), "closed by another thread");
    pthread_join(thread, NULL);
    ringfence_container_free(container);
}

int main(void)
{
    reading();
    readiness();
    return done();
}
