/* System calls of a container that this program answers, by poll and without callbacks.
 *
 * tests/run: timeout=300 vm=root
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <ringfence.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json.h"
#include "started.h"

#define ASKING "{\"profile\": \"default\", \"rules\": [{\"names\": [\"mkdir\", \"mkdirat\", \"openat2\", \"getsid\", \"sysinfo\"], \"action\": \"notify\"}]}"

static const char script[] =
    "import ctypes, os, time\n"
    "libc = ctypes.CDLL(None, use_errno=True)\n"
    "def made(path):\n"
    "    try: return os.mkdir(path) or 0\n"
    "    except OSError as e: return e.errno\n"
    "print(made('/host/errno'), made('/host/value'), made('/host/dropped'), made('/tmp/c'), os.path.isdir('/tmp/c'))\n"
    "how = (ctypes.c_uint64 * 3)()\n"
    "fd = libc.syscall(437, -1, b'/host/file', how, 24)\n"
    "print(fd, os.read(fd, 99).decode().strip())\n"
    "buffer = ctypes.create_string_buffer(512)\n"
    "print(libc.sysinfo(buffer), buffer.raw[:3].decode())\n"
    "r, w = os.pipe()\n"
    "print(libc.getsid(w), os.read(r, 99).decode())\n";

static ringfence_process *python(ringfence_container *container, const char *code)
{
    ringfence_command *command = ringfence_command_new("python3");
    ringfence_process *process = NULL;
    if (ringfence_command_arg(command, "-c", &err) < 0 || ringfence_command_arg(command, code, &err) < 0 ||
        ringfence_command_set(command, "stdin", "null", &err) < 0 || ringfence_command_set(command, "stdout", "pipe", &err) < 0 ||
        ringfence_command_set(command, "seccomp", ASKING, &err) < 0 ||
        ringfence_container_spawn(container, command, &process, &err) < 0)
        explain();
    ringfence_command_free(command);
    return process;
}

static int readable(ringfence_syscall_listener *listener, int milliseconds)
{
    struct pollfd one = {ringfence_syscall_listener_fd(listener), POLLIN, 0};
    return poll(&one, 1, milliseconds) == 1;
}

/* Whether a call of the request failed because nobody waits any more. */
static int gone(int result)
{
    return failed(result, RINGFENCE_KIND_NOT_FOUND, NULL) && errno == ENOENT;
}

static int answer(ringfence_syscall_request *request, int file)
{
    const char *name = ringfence_syscall_request_name(request);
    int result = -1, own;
    if (!strcmp(name, "sysinfo")) {
        char seen[3] = "";
        uint64_t address = ringfence_syscall_request_arg(request, 0);
        ok(ringfence_syscall_request_write_memory(request, address, "abc", 3, &err) == 0 &&
               ringfence_syscall_request_read_memory(request, address, seen, 3, &err) == 0 && !memcmp(seen, "abc", 3),
           "memory is written and read");
        ok(failed(ringfence_syscall_request_read_memory(request, 8, seen, 3, &err), RINGFENCE_KIND_OS, NULL) && errno == EFAULT,
           "where there is none");
        return ringfence_syscall_request_answer_value(request, 5, &err);
    }
    if (!strcmp(name, "getsid")) {
        own = ringfence_syscall_request_dup_fd(request, (int)ringfence_syscall_request_arg(request, 0), &err);
        ok(own >= 0 && write(own, "by its pipe", 11) == 11, "a copy of its descriptor");
        close(own);
        return ringfence_syscall_request_answer_value(request, 6, &err);
    }
    int at = !strcmp(name, "mkdir") ? 0 : 1;
    char *path = ringfence_syscall_request_read_c_string(request, ringfence_syscall_request_arg(request, at), 4096, &err);
    if (!path)
        explain();
    else if (!strcmp(path, "/host/errno"))
        result = ringfence_syscall_request_answer_errno(request, E2BIG, &err);
    else if (!strcmp(path, "/host/value"))
        result = ringfence_syscall_request_answer_value(request, 0, &err);
    else if (!strcmp(path, "/host/dropped"))
        result = 0;
    else if (!strcmp(path, "/tmp/c"))
        result = ringfence_syscall_request_answer_continue(request, &err);
    else if (!strcmp(path, "/host/file")) {
        ok(failed(ringfence_syscall_request_answer_fd(request, -1, -1, 0, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL) &&
               failed(ringfence_syscall_request_answer_fd(request, file, -2, 0, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL),
           "no descriptor, no number");
        ok(ringfence_syscall_request_add_fd(request, file, 44, 1, &err) == 44, "a descriptor beside");
        result = ringfence_syscall_request_answer_fd(request, file, 55, 0, &err) == 55 ? 0 : -1;
    }
    ringfence_string_free(path);
    return result;
}

static void answers(void)
{
    ringfence_container *container = start("{}");
    ringfence_syscall_listener *listener = NULL;
    ringfence_syscall_request *request = NULL;
    ok(container && ringfence_container_syscall_listener(container, &listener, &err) == 0, "a listener");
    ok(ringfence_syscall_listener_next(listener, 0, &request, &err) == 0 && !request && !readable(listener, 0), "nothing yet");
    ringfence_process *process = python(container, script);
    int file = open("/proc/self/comm", O_RDONLY | O_CLOEXEC), pid = ringfence_process_pid(process), calls = 0, last = 0;
    /* The C library asks for sysinfo, too. */
    while (!last && ringfence_syscall_listener_next(listener, 60000, &request, &err) == 1) {
        char *text = ringfence_syscall_request_json(request, &err);
        json whole = {text, text ? strlen(text) : 0};
        if (!calls++)
            ok(ringfence_syscall_request_pid(request) == pid && ringfence_syscall_request_process(request) == pid &&
                   ringfence_syscall_request_number(request) >= 0 && ringfence_syscall_request_instruction_pointer(request) &&
                   ringfence_syscall_request_arch(request) && text && json_get(whole, "name").at &&
                   ringfence_syscall_request_is_valid(request, &err) == 1 && ringfence_syscall_request_arg(request, 6) == 0,
               "what is known of a call");
        ringfence_string_free(text);
        last = !strcmp(ringfence_syscall_request_name(request), "getsid");
        ok(answer(request, file) == 0, "answered");
        ringfence_syscall_request_free(request);
        request = NULL;
    }
    char seen[512] = "";
    size_t length = 0;
    ssize_t n;
    while ((n = read(ringfence_process_stdout_fd(process), seen + length, sizeof seen - 1 - length)) > 0)
        length += (size_t)n;
    ok(!strcmp(seen, "7 0 38 0 True\n55 syscalls\n5 abc\n6 by its pipe\n"), "what the program sees: %s", seen);
    ok(ringfence_process_wait(process, 60000, &err) == 1, "its end");
    ringfence_process_free(process);
    close(file);

    /* Killed while it waits; a worker of this program; the end. */
    process = python(container, "import os; print(os.getsid(0))");
    ok(ringfence_syscall_listener_next(listener, 60000, &request, &err) == 1, "one more");
    pid_t child = fork();
    if (child == 0) {
        ringfence_error *own = NULL;
        int good = ringfence_syscall_request_answer_value(request, 1, &own) == -1 &&
                   ringfence_error_kind(own) == RINGFENCE_KIND_FORKED_CHILD;
        ringfence_syscall_request_free(request);
        _exit(good ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    ok(status == 0 && ringfence_syscall_request_is_valid(request, &err) == 1, "a forked child answers nothing");
    char byte;
    ok(ringfence_process_kill(process, SIGKILL, &err) == 0 && ringfence_process_wait(process, 60000, &err) == 1, "killed");
    ok(ringfence_syscall_request_is_valid(request, &err) == 0 && gone(ringfence_syscall_request_answer_errno(request, EPERM, &err)) &&
           gone(ringfence_syscall_request_read_memory(request, 4096, &byte, 1, &err)) &&
           gone(ringfence_syscall_request_dup_fd(request, 0, &err)),
       "nobody waits any more");
    ringfence_syscall_request_free(request);
    ringfence_process_free(process);
    ok(ringfence_container_close(container, -1, &err) == 0, "close");
    ringfence_container_free(container);
    ok(ringfence_syscall_listener_next(listener, -1, &request, &err) == 0 && ringfence_syscall_listener_is_over(listener) == 1 &&
           readable(listener, 0),
       "over");
    ringfence_syscall_listener_free(listener);
}

static void misuse(void)
{
    ringfence_syscall_listener *listener = NULL;
    ringfence_syscall_request *request = NULL;
    ringfence_container *container = start("{}");
    ok(failed(ringfence_container_syscall_listener(NULL, &listener, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL) &&
           failed(ringfence_container_syscall_listener(container, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL),
       "no container, no place");
    ok(ringfence_container_syscall_listener(container, &listener, &err) == 0, "a listener");
    ok(failed(ringfence_syscall_listener_next(listener, 0, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL) &&
           failed(ringfence_syscall_listener_next(listener, -2, &request, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL) &&
           failed(ringfence_syscall_listener_next(NULL, 0, &request, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL),
       "no place for a request, no timeout, no listener");
    ok(ringfence_syscall_listener_cancel(listener, &err) == 0 &&
           failed(ringfence_syscall_listener_next(listener, -1, &request, &err), RINGFENCE_KIND_CLOSED, NULL),
       "cancelled");
    ok(ringfence_syscall_request_pid(NULL) == -1 && !ringfence_syscall_request_name(NULL) && !ringfence_syscall_request_id(NULL) &&
           ringfence_syscall_listener_fd(NULL) == -1 && ringfence_syscall_listener_is_over(NULL) == -1,
       "NULL");
    ringfence_syscall_request_free(NULL);
    ringfence_syscall_listener_free(NULL);
    ringfence_syscall_listener_free(listener);
    ringfence_container_close(container, -1, NULL);
    ringfence_container_free(container);
}

int main(void)
{
    answers();
    misuse();
    return done();
}
