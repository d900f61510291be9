/* Rules about devices, and devices that come and go while a container runs.
   tests/run: as=root,user vm=root */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "started.h"

static ringfence_container *container;

/* The exit status of a script inside. */
static int inside(const char *script)
{
    ringfence_command *command = ringfence_command_new("sh");
    ringfence_process *process = NULL;
    int code = -1;
    if (ringfence_command_arg(command, "-c", &err) < 0 || ringfence_command_arg(command, script, &err) < 0 ||
        ringfence_command_set(command, "stderr", "null", &err) < 0 ||
        ringfence_container_spawn(container, command, &process, &err) < 0 ||
        ringfence_process_wait(process, 30000, &err) != 1)
        explain();
    else
        code = ringfence_process_exit_code(process);
    ringfence_process_free(process);
    ringfence_command_free(command);
    return code;
}

static int add(const char *device) { return ringfence_container_add_device(container, device, &err); }

static int update(const char *json) { return ringfence_container_update(container, json, &err); }

/* The doctor says by what rules are had. */
static void doctored(int has_rules)
{
    char *json = ringfence_doctor_json(&err), *row = json ? strstr(json, "\"what\":\"devices.rules\"") : NULL;
    /* Members are in the order of their names: "ok" stands before the name of the row. */
    while (row && row > json && *row != '{')
        row--;
    ok(row && strstr(row, "\"ok\":") && !strncmp(strstr(row, "\"ok\":") + 5, has_rules ? "true" : "false", has_rules ? 4 : 5), "the doctor's row");
    ok(json && strstr(json, "\"what\":\"caller.groups\""), "the caller's groups");
    ringfence_string_free(json);
}

int main(void)
{
    int root = geteuid() == 0;
    char *json;
    container = start(root ? "{\"devices\": [\"/dev/zero:/dev/z:r\"], \"device_rules\": [\"deny c 1:9 r\"]}" : "{}");
    if (!container) {
        ok(0, "start");
        return done();
    }
    ok(failed(add(NULL), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no device");
    ok(failed(ringfence_container_add_device(NULL, "/dev/full:/dev/f", &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no container");
    ok(failed(add("full"), RINGFENCE_KIND_INVALID_SPEC, "devices[0]"), "no path");
    ok(failed(add("/dev/full:/dev/null"), RINGFENCE_KIND_INVALID_SPEC, root ? "devices[1].target" : "devices[0].target"), "one of its own");
    ok(add("{\"path\": \"/dev/full\", \"target\": \"/dev/a/f\"}") == 0, "add");
    ok(inside("exec 3</dev/a/f") == 0, "open");
    ok(failed(add("/dev/full:/dev/a/f"), RINGFENCE_KIND_INVALID_SPEC, NULL), "once only");
    ok(inside("echo mine >/dev/mine") == 0, "a file of its own");
    ok(failed(add("/dev/full:/dev/mine"), RINGFENCE_KIND_ALREADY_EXISTS, root ? "devices[2].target" : "devices[1].target"), "not covered");
    ok(failed(ringfence_container_remove_device(container, "/dev/mine", &err), RINGFENCE_KIND_NOT_FOUND, "target"), "not taken away");
    ok(failed(ringfence_container_remove_device(container, NULL, &err), RINGFENCE_KIND_INVALID_ARGUMENT, NULL), "no target");
    ok(ringfence_container_remove_device(container, "/dev/a/f", &err) == 0, "remove");
    ok(inside("test ! -e /dev/a/f") == 0, "gone");
    if (root) {
        ok(inside("exec 3</dev/z") == 0 && inside("exec 3>>/dev/z") != 0 && inside("exec 3>>/dev/zero") != 0, "for reading only");
        ok(inside("exec 3</dev/urandom") != 0 && inside("exec 3>>/dev/urandom") == 0, "for writing only");
        ok(failed(update("{\"device_rules\": [\"x\"]}"), RINGFENCE_KIND_INVALID_SPEC, "device_rules[0]"), "no rule");
        ok(update("{\"device_rules\": null, \"devices\": [\"/dev/zero:/dev/z\"]}") == 0, "update");
        ok(inside("exec 3</dev/urandom 4<>/dev/z") == 0, "everything standard");
    } else {
        ok(failed(update("{\"device_rules\": [\"c 1:9 r\"]}"), RINGFENCE_KIND_PERMISSION_DENIED, "device_rules"), "no rules");
        ok(failed(add("/dev/full:/dev/r:r"), RINGFENCE_KIND_PERMISSION_DENIED, "devices[0].access"), "no access");
    }
    json = ringfence_container_info_json(container, &err);
    ok(json && strstr(json, "\"groups_kept\":["), "the caller's groups that came along");
    ringfence_string_free(json);
    doctored(root);
    ok(ringfence_container_close(container, 30000, &err) == 0, "close");
    ok(failed(add("/dev/full:/dev/f"), RINGFENCE_KIND_CLOSED, NULL), "closed");
    ringfence_container_free(container);
    return done();
}
