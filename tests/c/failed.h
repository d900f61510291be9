/* The error of the call before, for programs that expect it. */
#ifndef FAILED_H
#define FAILED_H

#include <ringfence.h>

#include "tap.h"

static ringfence_error *err;

/* Whether a call failed with this kind; takes the error. */
static int failed(int result, ringfence_kind kind)
{
    int good = result == -1 && ringfence_error_kind(err) == kind;
    if (!good)
        note("result %d: %s (%s)", result, ringfence_error_message(err), ringfence_error_kind_name(err));
    ringfence_error_free(err);
    err = NULL;
    return good;
}

#endif
