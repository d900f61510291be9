/* ringfence inside ringfence: this program starts itself in a container, and there a container.
   tests/run: link=static */
#include <libgen.h>
#include <limits.h>
#include <ringfence.h>
#include <unistd.h>

#include "failed.h"

/* The second level: says who it is through the first. */
static int inside(void)
{
    ringfence_output *out = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"hostname\": \"inner\", \"argv\": [\"uname\", \"-n\"]}", &err);
    if (ringfence_run(spec, NULL, 0, 60000, &out, &err) < 0) {
        printf("%s\n", ringfence_error_message(err));
        return 1;
    }
    printf("inside: %s", ringfence_output_stdout(out));
    ringfence_output_free(out);
    ringfence_spec_free(spec);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "inside"))
        return inside();
    char path[PATH_MAX] = "", mount[PATH_MAX + 8], program[PATH_MAX + 8];
    ok(readlink("/proc/self/exe", path, sizeof path - 1) > 0, "this program");
    snprintf(program, sizeof program, "/exe/%s", basename(path));
    snprintf(mount, sizeof mount, "%s:/exe", dirname(path));
    ringfence_spec *spec = ringfence_spec_new();
    ringfence_output *out = NULL;
    ok(failed(ringfence_spec_set(spec, "nesting", "yes", &err), RINGFENCE_KIND_INVALID_SPEC), "neither true nor false");
    ok(ringfence_spec_set(spec, "nesting", "true", &err) == 0 && ringfence_spec_set(spec, "mounts", mount, &err) == 0 &&
           ringfence_spec_set(spec, "argv", program, &err) == 0 && ringfence_spec_set(spec, "argv", "inside", &err) == 0,
       "a spec");
    ok(ringfence_run(spec, NULL, 0, 120000, &out, &err) == 0, "run: %s", err == NULL ? "" : ringfence_error_message(err));
    ok(out != NULL && !strcmp(ringfence_output_stdout(out), "inside: inner\n"), "%s",
       out == NULL ? "nothing" : ringfence_output_stdout(out));
    ringfence_output_free(out);
    ringfence_spec_free(spec);
    return done();
}
