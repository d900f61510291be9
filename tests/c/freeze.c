/* Freezing, thawing and killing all processes at once, while they fork.
 *
 * tests/run: timeout=300 vm=root
 */
#include <fcntl.h>
#include <ringfence.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"

/* Forks as fast as it can; each process but the first is gone after one to three forks, and writes a byte before each. */
static const char *herd = "$SIG{CHLD} = \"IGNORE\"; my $n = -1;"
                          "while ($n--) { syswrite STDOUT, \"x\"; my $p = fork; $n = 1 + $$ % 3 if defined $p && !$p }";

static ringfence_error *err;
static int count;

static off_t length(void)
{
    struct stat found = {0};
    fstat(count, &found);
    return found.st_size;
}

static int grows(void)
{
    off_t before = length();
    time_t deadline = time(NULL) + 30;
    while (length() < before + 10 && time(NULL) < deadline)
        usleep(1000);
    return length() >= before + 10;
}

static uint64_t tasks(const ringfence_container *container)
{
    uint64_t now = 0;
    ringfence_container_usage_u64(container, "pids_current", &now, NULL);
    return now;
}

int main(void)
{
    ringfence_container *container = NULL;
    ringfence_process *process = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"pids\": 24}", &err);
    if (ringfence_container_start(spec, &container, &err) < 0) {
        int kind = ringfence_error_kind(err);
        if (kind != RINGFENCE_KIND_UNSUPPORTED && kind != RINGFENCE_KIND_PERMISSION_DENIED)
            ok(0, "start: %s", ringfence_error_message(err));
        else
            skip("freeze", ringfence_error_message(err));
        ringfence_error_free(err);
        ringfence_spec_free(spec);
        return done();
    }
    /* All append to it: how far they came. */
    char path[] = "/var/tmp/ringfence-count-XXXXXX", fd[32];
    count = mkostemp(path, O_APPEND | O_CLOEXEC);
    unlink(path);
    snprintf(fd, sizeof fd, "fd:%d", count);
    ringfence_command *command = ringfence_command_new("perl");
    ok(ringfence_command_arg(command, "-e", &err) == 0 && ringfence_command_arg(command, herd, &err) == 0 &&
           ringfence_command_set(command, "stdin", "null", &err) == 0 && ringfence_command_set(command, "stdout", fd, &err) == 0 &&
           ringfence_container_spawn(container, command, &process, &err) == 0,
       "a herd: %s", err ? ringfence_error_message(err) : "started");
    int running = 1, still = 1;
    for (int round = 0; round < 10 && running && still; round++) {
        running = grows() && ringfence_container_freeze(container, &err) == 0;
        off_t before = length();
        uint64_t there = tasks(container);
        usleep(3000);
        still = length() == before && tasks(container) == there;
        running = running && ringfence_container_thaw(container, &err) == 0;
    }
    ok(running, "all run again after each thaw: %s", err ? ringfence_error_message(err) : "no error");
    ok(still, "who is frozen neither writes nor forks nor ends");
    ok(ringfence_container_kill(container, &err) == 0, "kill");
    ok(ringfence_process_wait(process, 30000, &err) == 1 && ringfence_process_signal(process) == 9, "the first is dead");
    ok(ringfence_container_wait(container, 30000, &err) == 1, "and all others");
    off_t before = length();
    usleep(3000);
    ok(length() == before, "nobody writes any more");
    ringfence_process_free(process);
    ringfence_command_free(command);
    ok(ringfence_container_close(container, -1, &err) == 0, "close");
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    close(count);
    return done();
}
