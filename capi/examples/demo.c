/* What `make demo` shows of the C interface: a shell pipeline of this machine's own programs, in a limited container of its
 * own, and everything gone afterwards.
 *
 *     cc demo.c $(pkg-config --cflags --libs ringfence) -o demo
 */
#include <ringfence.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const pipeline =
    "echo \"a shell, pid $$ on $(cat /proc/sys/kernel/hostname), as uid $(id -u), pid 1 is $(cat /proc/1/comm)\"\n"
    "ls /usr/bin | sed 's/[^a-z].*//' | sort | uniq -c | sort -rn | head -n 3\n"
    "echo secret > /etc/only-inside && cat /etc/only-inside\n"
    "exit 3";

/* Prints the error, which says what was being done, for which field, with which errno, and what to do about it. */
static int fail(ringfence_error *err)
{
    fprintf(stderr, "%s\n", ringfence_error_message(err));
    ringfence_error_free(err);
    return 1;
}

/* Who may set limits depends on the machine: for an ordinary user, control groups must be delegated. */
static int start(ringfence_spec *spec, ringfence_container **c, ringfence_error **err)
{
    if (ringfence_spec_set(spec, "memory", "256M", err) < 0 ||  /* bytes, K, M, G */
        ringfence_spec_set(spec, "cpus", "0.5", err) < 0 ||     /* half of one core's time */
        ringfence_spec_set(spec, "pids", "32", err) < 0)        /* processes and threads */
        return -1;
    if (ringfence_container_start(spec, c, err) == 0)
        return 0;
    const char *field = ringfence_error_field(*err);
    if (!field || (strcmp(field, "memory") && strcmp(field, "cpus") && strcmp(field, "pids")))
        return -1;
    printf("without limits here: %s\n", ringfence_error_message(*err));
    ringfence_error_free(*err);
    *err = NULL;
    if (ringfence_spec_clear(spec, "memory", err) < 0 || ringfence_spec_clear(spec, "cpus", err) < 0 ||
        ringfence_spec_clear(spec, "pids", err) < 0)
        return -1;
    return ringfence_container_start(spec, c, err);
}

int main(void)
{
    ringfence_error *err = NULL;
    ringfence_spec *spec = ringfence_spec_new();
    ringfence_container *c = NULL;
    ringfence_process *p = NULL;
    ringfence_output *output = NULL;
    uint64_t peak, cpu;

    if (!spec)
        return 1;
    if (ringfence_spec_set(spec, "hostname", "demo-c", &err) < 0 || start(spec, &c, &err) < 0)
        return fail(err);
    printf("container %s: its pid 1 is %d out here\n", ringfence_container_id(c), ringfence_container_pid(c));

    /* A process in it, with pipes of its own. Any number can run at once. */
    ringfence_command *cmd = ringfence_command_new("sh");
    if (ringfence_command_arg(cmd, "-c", &err) < 0 || ringfence_command_arg(cmd, pipeline, &err) < 0 ||
        ringfence_command_set(cmd, "stdout", "pipe", &err) < 0 || ringfence_container_spawn(c, cmd, &p, &err) < 0)
        return fail(err);

    /* 1: it has ended, 0: the time passed first, -1: error. */
    int ended = ringfence_process_communicate(p, NULL, 0, 10000, &output, &err);
    if (ended < 0)
        return fail(err);
    if (ended == 0) {
        fprintf(stderr, "it takes too long\n");
        return 1;
    }
    printf("%s", ringfence_output_stdout(output));
    printf("exit code %d (%s)\n", ringfence_output_exit_code(output),
           ringfence_reason_name(ringfence_output_reason(output)));

    if (ringfence_container_usage_u64(c, "memory_peak", &peak, NULL) == 0 &&
        ringfence_container_usage_u64(c, "cpu_usage_usec", &cpu, NULL) == 0)
        printf("it used at most %llu KiB of memory and %llu ms of CPU time\n", (unsigned long long)peak >> 10,
               (unsigned long long)cpu / 1000);

    /* Close kills what still runs and waits until all is undone: processes, mounts, control groups, files. */
    char process[32];
    int pid = ringfence_container_pid(c);
    snprintf(process, sizeof process, "/proc/%d", pid);
    if (ringfence_container_close(c, 5000, &err) < 0)
        return fail(err);
    printf("closed: pid %d %s, /etc/only-inside %s on the host\n", pid, access(process, F_OK) ? "is gone" : "is still there",
           access("/etc/only-inside", F_OK) ? "was never" : "is");

    ringfence_output_free(output);
    ringfence_process_free(p);
    ringfence_command_free(cmd);
    ringfence_container_free(c);
    ringfence_spec_free(spec);
    return 0;
}
