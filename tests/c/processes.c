/* The processes of a container. */
#include <errno.h>
#include <ringfence.h>
#include <string.h>
#include <unistd.h>

#include "tap.h"

int main(void)
{
    ringfence_error *err = NULL;
    ringfence_container *container = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{}", &err);
    if (ringfence_container_start(spec, &container, &err) < 0) {
        ok(0, "start: %s", ringfence_error_message(err));
        return done();
    }
    char *list = ringfence_container_processes_json(container, &err);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"pid\":%d,", ringfence_container_pid(container));
    ok(list && strstr(list, wanted) && strstr(list, "\"pid_inside\":1,") && strstr(list, "\"parent_inside\":null"), "pid 1: %s",
       list ? list : "none");
    ringfence_string_free(list);
    int pidfd = ringfence_container_pidfd_of(container, 1, &err);
    ok(pidfd >= 0, "a pidfd");
    close(pidfd);
    ok(ringfence_container_pidfd_of(container, 4000000, &err) == -1 && ringfence_error_errno(err) == ESRCH &&
           !strcmp(ringfence_error_field(err), "pid"),
       "no such process");
    ringfence_error_free(err);
    err = NULL;
    ringfence_command *command = ringfence_command_new("sleep");
    ringfence_process *process = NULL, *second = NULL;
    ringfence_command_arg(command, "1000", NULL);
    ok(ringfence_command_set(command, "set_tid", "100", &err) == 0 &&
           ringfence_container_spawn(container, command, &process, &err) == 0,
       "a wanted pid: %s", ringfence_error_message(err));
    pidfd = ringfence_container_pidfd_of(container, 100, &err);
    ok(pidfd >= 0, "it is that one");
    close(pidfd);
    ok(ringfence_container_spawn(container, command, &second, &err) == -1 && ringfence_error_errno(err) == EEXIST &&
           ringfence_error_kind(err) == RINGFENCE_KIND_ALREADY_EXISTS && !strcmp(ringfence_error_field(err), "set_tid"),
       "taken");
    ringfence_error_free(err);
    err = NULL;
    ringfence_process_free(process);
    ringfence_command_free(command);
    ok(ringfence_container_close(container, 30000, &err) == 0, "close");
    ok(!ringfence_container_processes_json(container, &err) && ringfence_error_kind(err) == RINGFENCE_KIND_CLOSED, "closed");
    ringfence_error_free(err);
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    return done();
}
