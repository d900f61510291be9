/*
 * Runs the language-neutral cases of tests/cases through the C interface. tests/lib/cases_header.py makes cases.h of them.
 *
 * tests/run: timeout=600
 */
#include <ringfence.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct expectation {
    int code, signal;
    const char *reason, *stdout_is;
    const char *const *stdout_has, *const *stdout_lacks, *const *stderr_has;
    int error;
    const char *error_kind, *error_field, *error_has;
};

struct test_step {
    const char *const *argv, *const *set;
    const char *input;
    struct expectation expect;
};

struct test_case {
    const char *name, *spec;
    const char *const *needs;
    const char *as;
    int timeout_ms, commands;
    size_t step_count;
    const struct test_step *steps;
};

#include "cases.h"

enum verdict { PASS, SKIP, FAIL };

static char why[4096];

static enum verdict say(enum verdict verdict, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    return verdict;
}

static int same(const char *wanted, const char *seen)
{
    return wanted == NULL || (seen != NULL && strcmp(wanted, seen) == 0);
}

static enum verdict check_error(const struct test_case *c, const struct expectation *expect, ringfence_error *err)
{
    const char *kind = ringfence_error_kind_name(err), *field = ringfence_error_field(err);
    const char *message = ringfence_error_message(err);
    enum verdict verdict;
    int lacking = kind != NULL && (strcmp(kind, "unsupported") == 0 || strcmp(kind, "permission_denied") == 0);

    for (const char *const *need = c->needs; *need != NULL; need++)
        if (lacking && field != NULL && strcmp(field, *need) == 0) {
            verdict = say(SKIP, "%s", message);
            ringfence_error_free(err);
            return verdict;
        }
    if (expect->error && same(expect->error_kind, kind) && same(expect->error_field, field) &&
        (expect->error_has == NULL || strstr(message, expect->error_has) != NULL))
        verdict = PASS;
    else
        verdict = say(FAIL, "unexpected error: %s", ringfence_error_json(err));
    ringfence_error_free(err);
    return verdict;
}

static enum verdict check_output(const struct expectation *expect, ringfence_output *output)
{
    const char *out = ringfence_output_stdout(output), *errors = ringfence_output_stderr(output);
    const char *reason = ringfence_reason_name(ringfence_output_reason(output));
    int code = ringfence_output_exit_code(output), signal = ringfence_output_signal(output);
    const char *wrong = NULL, *detail = "";

    if (expect->error)
        wrong = "an error was expected";
    else if (code != expect->code || signal != expect->signal)
        wrong = "wrong exit code or signal";
    else if (!same(expect->reason, reason))
        wrong = "wrong reason, expected", detail = expect->reason;
    else if (!same(expect->stdout_is, out))
        wrong = "wrong stdout, expected", detail = expect->stdout_is;
    for (const char *const *t = expect->stdout_has; wrong == NULL && *t != NULL; t++)
        if (strstr(out, *t) == NULL)
            wrong = "not in stdout:", detail = *t;
    for (const char *const *t = expect->stdout_lacks; wrong == NULL && *t != NULL; t++)
        if (strstr(out, *t) != NULL)
            wrong = "in stdout:", detail = *t;
    for (const char *const *t = expect->stderr_has; wrong == NULL && *t != NULL; t++)
        if (strstr(errors, *t) == NULL)
            wrong = "not in stderr:", detail = *t;
    if (wrong != NULL)
        say(FAIL, "%s %s\ncode %d, signal %d, reason %s\nstdout: %s\nstderr: %s", wrong, detail, code, signal,
            reason != NULL ? reason : "?", out, errors);
    ringfence_output_free(output);
    return wrong != NULL ? FAIL : PASS;
}

static int run_command(const struct test_case *c, const struct test_step *step, ringfence_container *container,
                       ringfence_output **output, ringfence_error **err)
{
    ringfence_command *command = ringfence_command_new(step->argv[0]);
    ringfence_process *process = NULL;
    int result = 0;

    for (const char *const *word = step->argv + 1; result == 0 && *word != NULL; word++)
        result = ringfence_command_arg(command, *word, err);
    for (const char *const *pair = step->set; result == 0 && *pair != NULL; pair += 2)
        result = ringfence_command_set(command, pair[0], pair[1], err);
    if (result == 0)
        result = ringfence_command_set(command, "stdin", step->input != NULL ? "pipe" : "null", err);
    if (result == 0)
        result = ringfence_command_set(command, "stdout", "pipe", err);
    if (result == 0)
        result = ringfence_command_set(command, "stderr", "pipe", err);
    if (result == 0)
        result = ringfence_container_spawn(container, command, &process, err);
    if (result == 0)
        result = ringfence_process_communicate(process, step->input, step->input != NULL ? strlen(step->input) : 0,
                                               c->timeout_ms, output, err);
    ringfence_process_free(process);
    ringfence_command_free(command);
    return result;
}

static enum verdict run_case(const struct test_case *c)
{
    ringfence_error *err = NULL;
    ringfence_spec *spec;
    ringfence_container *container = NULL;
    ringfence_output *output = NULL;
    enum verdict verdict = PASS;

    if (c->as != NULL && (strcmp(c->as, "root") == 0) != (geteuid() == 0))
        return say(SKIP, "only as %s", c->as);
    spec = ringfence_spec_from_json(c->spec, &err);
    if (spec == NULL)
        return check_error(c, &c->steps[0].expect, err);
    if (!c->commands) {
        const char *input = c->steps[0].input;
        if (ringfence_run(spec, input, input != NULL ? strlen(input) : 0, c->timeout_ms, &output, &err) < 0)
            verdict = check_error(c, &c->steps[0].expect, err);
        else
            verdict = check_output(&c->steps[0].expect, output);
        ringfence_spec_free(spec);
        return verdict;
    }
    if (ringfence_container_start(spec, &container, &err) < 0)
        verdict = check_error(c, &c->steps[0].expect, err);
    for (size_t i = 0; container != NULL && verdict == PASS && i < c->step_count; i++) {
        int result = run_command(c, &c->steps[i], container, &output, &err);
        if (result < 0)
            verdict = check_error(c, &c->steps[i].expect, err);
        else if (result == 0)
            verdict = say(FAIL, "step %zu did not end in time", i);
        else
            verdict = check_output(&c->steps[i].expect, output);
        err = NULL;
        output = NULL;
    }
    if (container != NULL && ringfence_container_close(container, c->timeout_ms, &err) < 0 && verdict == PASS) {
        verdict = say(FAIL, "close: %s", ringfence_error_message(err));
        ringfence_error_free(err);
    }
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    return verdict;
}

int main(int argc, char **argv)
{
    const char *filter = argc > 1 ? argv[1] : "";
    int number = 0, failed = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (strstr(cases[i].name, filter) == NULL)
            continue;
        number++;
        switch (run_case(&cases[i])) {
        case PASS:
            printf("ok %d - %s\n", number, cases[i].name);
            break;
        case SKIP:
            printf("ok %d - %s # SKIP %s\n", number, cases[i].name, why);
            break;
        case FAIL:
            failed = 1;
            printf("%s\nnot ok %d - %s\n", why, number, cases[i].name);
            break;
        }
    }
    printf("1..%d\n", number);
    return failed;
}
