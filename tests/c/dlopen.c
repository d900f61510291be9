/* The shared library as a plugin: loaded, used, closed, loaded again; its soname and versions.
 *
 * tests/run: cflags=-Xlinker,--as-needed
 */
#include <dlfcn.h>
#include <link.h>
#include <ringfence.h>
#include <stdint.h>

#include "tap.h"

static int loaded(struct dl_phdr_info *info, size_t size, void *found)
{
    (void)size;
    if (strstr(info->dlpi_name, "libringfence.so.0"))
        ++*(int *)found;
    return 0;
}

/* The pedantic way from an object pointer to a function pointer. */
static void find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
}

int main(void)
{
    const char *path = getenv("RINGFENCE_LIBRARY");
    int copies = 0;
    void *library = dlopen(path ? path : "libringfence.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!ok(library != NULL, "dlopen by soname: %s", library ? "found" : dlerror()))
        return done();
    const char *(*version)(void);
    ringfence_spec *(*spec_new)(void);
    void (*spec_free)(ringfence_spec *);
    int (*spec_set)(ringfence_spec *, const char *, const char *, ringfence_error **);
    int (*run)(const ringfence_spec *, const void *, size_t, int, ringfence_output **, ringfence_error **);
    int (*exit_code)(const ringfence_output *);
    void (*output_free)(ringfence_output *);
    find(library, "ringfence_version", &version);
    find(library, "ringfence_spec_new", &spec_new);
    find(library, "ringfence_spec_free", &spec_free);
    find(library, "ringfence_spec_set", &spec_set);
    find(library, "ringfence_run", &run);
    find(library, "ringfence_output_exit_code", &exit_code);
    find(library, "ringfence_output_free", &output_free);
    ok(version && !strncmp(version(), "0.1.", 4), "version %s", version());
    ok(dlvsym(library, "ringfence_version", "RINGFENCE_0.1") != NULL, "its symbols have the version RINGFENCE_0.1");
    ok(dlsym(library, "rust_eh_personality") == NULL && dlsym(library, "malloc") != NULL, "nothing else is exported");

    ringfence_spec *spec = spec_new();
    ringfence_output *output = NULL;
    ok(spec_set(spec, "argv", "true", NULL) == 0 && run(spec, NULL, 0, 20000, &output, NULL) == 0 && exit_code(output) == 0,
       "a container");
    output_free(output);
    spec_free(spec);

    const char *text = version();
    ok(dlclose(library) == 0, "dlclose");
    dl_iterate_phdr(loaded, &copies);
    ok(copies == 1 && !strncmp(text, "0.1.", 4), "its code stays (-z nodelete)");
    void *again = dlopen(path ? path : "libringfence.so.0", RTLD_NOW | RTLD_LOCAL);
    ok(again != NULL, "dlopen again");
    spec = spec_new();
    output = NULL;
    ok(spec_set(spec, "argv", "true", NULL) == 0 && run(spec, NULL, 0, 20000, &output, NULL) == 0, "another container");
    output_free(output);
    spec_free(spec);
    dlclose(again);
    return done();
}
