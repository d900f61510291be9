/* Linked to libringfence.a with what pkg-config --static says: no shared library of ours is needed.
 *
 * tests/run: link=static
 */
#include <link.h>
#include <ringfence.h>

#include "tap.h"

static int shared(struct dl_phdr_info *info, size_t size, void *found)
{
    (void)size;
    if (strstr(info->dlpi_name, "libringfence"))
        ++*(int *)found;
    return 0;
}

int main(void)
{
    int copies = 0;
    dl_iterate_phdr(shared, &copies);
    ok(copies == 0, "no libringfence.so is loaded");
    ringfence_error *err = NULL;
    ringfence_output *output = NULL;
    ringfence_spec *spec = ringfence_spec_from_json("{\"argv\":[\"echo\",\"static\"],\"stdout\":\"pipe\"}", &err);
    ok(spec && ringfence_run(spec, NULL, 0, 20000, &output, &err) == 0, "a container: %s", ringfence_error_message(err));
    ok(output && !strcmp(ringfence_output_stdout(output), "static\n"), "its output");
    ringfence_output_free(output);
    ringfence_spec_free(spec);
    ringfence_error_free(err);
    return done();
}
