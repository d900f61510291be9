/* Who owns which descriptor: nothing leaks, nothing of the program's is closed, all of ours have CLOEXEC. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ringfence.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tap.h"

static ringfence_error *err;

static int count(int *without_cloexec)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    int number = 0;
    while ((entry = readdir(dir))) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(dir))
            continue;
        number++;
        if (without_cloexec && fd > 2 && !(fcntl(fd, F_GETFD) & FD_CLOEXEC))
            ++*without_cloexec;
    }
    closedir(dir);
    return number;
}

static ringfence_container *start(const char *text)
{
    ringfence_spec *spec = ringfence_spec_from_json(text, &err);
    ringfence_container *container = NULL;
    if (!spec || ringfence_container_start(spec, &container, &err) < 0)
        note("%s", ringfence_error_message(err));
    ringfence_spec_free(spec);
    return container;
}

static ringfence_process *spawn(ringfence_container *container, ringfence_command *command)
{
    ringfence_process *process = NULL;
    if (ringfence_container_spawn(container, command, &process, &err) < 0)
        note("%s", ringfence_error_message(err));
    return process;
}

static void one_life(void)
{
    ringfence_container *c = start("{}");
    ringfence_command *command = ringfence_command_new("cat");
    ringfence_command_set(command, "stdin", "pipe", NULL);
    ringfence_command_set(command, "stdout", "pipe", NULL);
    ringfence_command_set(command, "stderr", "pipe", NULL);
    ringfence_process *p = spawn(c, command);
    close(ringfence_process_stdin_take(p, NULL));
    ringfence_process_wait(p, 5000, NULL);
    close(ringfence_container_ns_fd(c, "net", NULL));
    ringfence_process_free(p);
    ringfence_command_free(command);
    ringfence_container_close(c, 5000, NULL);
    ringfence_container_free(c);
}

int main(void)
{
    int loose = 0, inherited = 0;
    count(&inherited);
    one_life(); /* the keeper's socket and what is made once stays open */
    int before = count(NULL);
    for (int i = 0; i < 20; i++)
        one_life();
    ok(count(NULL) == before, "20 containers later as many descriptors as before (%d, now %d)", before, count(NULL));

    ringfence_container *c = start("{}");
    int pidfd = ringfence_container_pidfd(c), events = ringfence_container_events_fd(c);
    ok(pidfd >= 0 && pidfd == ringfence_container_pidfd(c) && events == ringfence_container_events_fd(c),
       "a borrowed descriptor is always the same");
    count(&loose);
    ok(loose == inherited, "all have CLOEXEC (%d do not)", loose - inherited);

    /* What is passed in is duplicated. */
    int ends[2], saved;
    if (pipe2(ends, O_CLOEXEC))
        return 1;
    ringfence_command *command = ringfence_command_new("sh");
    ringfence_command_arg(command, "-c", NULL);
    ringfence_command_arg(command, "echo through the pipe; ls /proc/self/fd | wc -l >&2", NULL);
    ok(ringfence_command_stdout_fd(command, ends[1], &err) == 0, "pass a descriptor");
    saved = fcntl(ends[1], F_GETFD);
    ok(saved == FD_CLOEXEC, "ours is unchanged");
    close(ends[1]);
    int other[2];
    if (pipe2(other, O_CLOEXEC))
        return 1;
    ok(ringfence_command_stderr_fd(command, other[1], &err) == 0, "pass another");
    close(other[1]);
    ringfence_process *p = spawn(c, command);
    char text[64] = "";
    ok(ringfence_process_wait(p, 5000, &err) == 1, "it ran after ours were closed");
    ok(read(ends[0], text, sizeof text - 1) == 17 && !strcmp(text, "through the pipe\n"), "it wrote through the duplicate");
    memset(text, 0, sizeof text);
    ok(read(other[0], text, sizeof text - 1) > 0 && atoi(text) == 4, "it has 0, 1, 2 and what ls opened: %s", text);
    ringfence_command_free(command);
    ringfence_process_free(p);
    ok(read(ends[0], text, sizeof text) == 0 && read(other[0], text, sizeof text) == 0, "no end of them stays open");
    close(ends[0]);
    close(other[0]);

    /* What is taken is ours, what is borrowed goes with its object. */
    command = ringfence_command_new("cat");
    ringfence_command_set(command, "stdin", "pipe", NULL);
    ringfence_command_set(command, "stdout", "pipe", NULL);
    p = spawn(c, command);
    int in = ringfence_process_stdin_fd(p), out = ringfence_process_stdout_fd(p);
    ok(in >= 0 && ringfence_process_stdin_take(p, &err) == in, "take gives the same descriptor");
    ok(ringfence_process_stdin_fd(p) == -1, "it is no longer the process's");
    ringfence_process_free(p);
    ok(fcntl(in, F_GETFD) == FD_CLOEXEC && !(fcntl(in, F_GETFL) & O_NONBLOCK), "a taken one stays open, with CLOEXEC, blocking");
    ok(fcntl(out, F_GETFD) == -1 && errno == EBADF, "a borrowed one is closed with its object");
    close(in);
    ringfence_command_free(command);

    int ns = ringfence_container_ns_fd(c, "pid", &err);
    struct stat first, second;
    ringfence_container_close(c, 5000, NULL);
    ringfence_container_free(c);
    ok(fstat(ns, &first) == 0 && fstat(ns, &second) == 0 && first.st_ino == second.st_ino, "a namespace descriptor is ours");
    close(ns);
    ok(fcntl(pidfd, F_GETFD) == -1 && fcntl(events, F_GETFD) == -1, "the container's own are closed");
    ok(count(NULL) == before, "at the end as many as before (%d, now %d)", before, count(NULL));
    ringfence_error_free(err);
    return done();
}
