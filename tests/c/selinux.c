/* Labels of SELinux under a policy that is enforced: tests/vm/guest/selinux.cil. What it confines is in tests/rust/selinux.rs.
   tests/run: tier=vm vm-boot=selinux as=root,delegated vm=root,delegated */
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "started.h"

#define BOX "system_u:system_r:box_t:s0:c1"
#define HOST "system_u:system_r:host_t:s0-s0:c0.c9"
#define SHOW "cat /proc/self/attr/current"
#define OWN "system_u:object_r:own_t:s0:c1"

/* What a script in the container says, under a label unless that is NULL. */
static int says(ringfence_container *container, const char *label, const char *script, const char *wanted)
{
    ringfence_command *command = ringfence_command_new("/bin/sh");
    ringfence_process *process = NULL;
    ringfence_output *output = NULL;
    int good = ringfence_command_arg(command, "-c", &err) == 0 && ringfence_command_arg(command, script, &err) == 0 &&
               ringfence_command_set(command, "stdout", "pipe", &err) == 0 &&
               ringfence_command_set(command, "stderr", "null", &err) == 0 &&
               (!label || ringfence_command_set(command, "selinux", label, &err) == 0) &&
               ringfence_container_spawn(container, command, &process, &err) == 0 &&
               ringfence_process_communicate(process, NULL, 0, 60000, &output, &err) == 1;
    if (!good)
        explain();
    else if (strcmp(ringfence_output_stdout(output), wanted)) {
        note("%s: wanted %s, seen %s", script, wanted, ringfence_output_stdout(output));
        good = 0;
    }
    ringfence_output_free(output);
    ringfence_process_free(process);
    ringfence_command_free(command);
    return good;
}

static int refused(ringfence_container *container, const char *label, ringfence_kind kind, const char *field)
{
    ringfence_command *command = ringfence_command_new("true");
    ringfence_process *process = NULL;
    int good = ringfence_command_set(command, "selinux", label, &err) == 0 &&
               failed(ringfence_container_spawn(container, command, &process, &err), kind, field) && !process;
    ringfence_command_free(command);
    return good;
}

int main(void)
{
    static const char secret[] = "system_u:object_r:secret_t:s0";
    char path[] = "/tmp/ringfence-selinux-XXXXXX", text[200];
    int fd = mkstemp(path);
    ok(fd >= 0 && write(fd, "content", 7) == 7 && fsetxattr(fd, "security.selinux", secret, sizeof secret, 0) == 0, "a file");
    snprintf(text, sizeof text, "{\"mounts\": [\"%s:/etc/secret\"]}", path);
    ringfence_container *container = start(text);
    ok(container != NULL, "a container without a label");
    ok(says(container, NULL, SHOW, HOST), "a program has the caller's label");
    ok(says(container, BOX, SHOW, BOX), "a program has the label of its command");
    ok(says(container, NULL, "cat /etc/secret", "content"), "without a label it reads the file");
    ok(says(container, BOX, "cat /etc/secret", ""), "with one it does not read what the policy keeps from it");
    ok(refused(container, "system_u:system_r:no_such_t:s0", RINGFENCE_KIND_OS, "selinux"), "a label that the policy does not have");
    ok(refused(container, "system_u:system_r:closed_t:s0", RINGFENCE_KIND_PERMISSION_DENIED, "argv[0]"),
       "a label that the policy does not let go to");
    ringfence_container_free(container);

    container = start("{\"selinux\": \"" BOX "\"}");
    ok(container && says(container, NULL, SHOW, BOX), "a command has the label of its container");
    ok(container && says(container, "system_u:system_r:box_t:s0:c2", SHOW, "system_u:system_r:box_t:s0:c2"), "or its own");
    ringfence_container_free(container);

    container = start("{\"selinux\": \"" BOX "\", \"mount_label\": \"" OWN "\"}");
    ok(container && says(container, NULL, "echo x >/dev/shm/x && stat -c %C /dev/shm/x", OWN "\n"), "its files have the label of mounts");
    ringfence_container_free(container);
    close(fd);
    unlink(path);
    return done();
}
