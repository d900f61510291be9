/* Containers from JSON, and the error of the call before. */
#ifndef STARTED_H
#define STARTED_H

#include <ringfence.h>
#include <string.h>

#include "tap.h"

static ringfence_error *err;

/* Whether a call failed with this kind, and at this field unless that is NULL; takes the error. */
static inline int failed(int result, ringfence_kind kind, const char *field)
{
    const char *seen = ringfence_error_field(err);
    int good = result == -1 && ringfence_error_kind(err) == kind && (!field || (seen && !strcmp(seen, field)));
    if (!good)
        note("result %d: %s (%s)", result, ringfence_error_message(err), ringfence_error_kind_name(err));
    ringfence_error_free(err);
    err = NULL;
    return good;
}

/* Tells the error, and takes it. */
static inline void *explain(void)
{
    note("%s", ringfence_error_message(err));
    ringfence_error_free(err);
    err = NULL;
    return NULL;
}

static inline ringfence_container *start(const char *text)
{
    ringfence_spec *spec = ringfence_spec_from_json(text, &err);
    ringfence_container *container = NULL;
    if (!spec)
        return explain();
    if (ringfence_container_start(spec, &container, &err) < 0)
        explain();
    ringfence_spec_free(spec);
    return container;
}

#endif
