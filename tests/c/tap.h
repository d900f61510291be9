/* Test Anything Protocol for small programs: ok(), skip(), done(). */
#ifndef TAP_H
#define TAP_H

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_count, tap_failed;
static pthread_mutex_t tap_lock = PTHREAD_MUTEX_INITIALIZER;

static inline void note(const char *format, ...)
{
    char text[4096];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fputs("# ", stdout);
    for (const char *p = text; *p; p++) {
        putchar(*p);
        if (*p == '\n' && p[1])
            fputs("# ", stdout);
    }
    putchar('\n');
    fflush(stdout);
}

static inline int tap_report(int passed, const char *extra, const char *name)
{
    pthread_mutex_lock(&tap_lock);
    tap_failed += !passed;
    printf("%sok %d - %s%s\n", passed ? "" : "not ", ++tap_count, name, extra);
    fflush(stdout);
    pthread_mutex_unlock(&tap_lock);
    return passed;
}

static inline int tap_ok(int passed, const char *file, int line, const char *condition, const char *format, ...)
{
    char name[512];
    va_list list;
    va_start(list, format);
    vsnprintf(name, sizeof name, format, list);
    va_end(list);
    if (!passed)
        note("%s:%d: %s", file, line, condition);
    return tap_report(passed, "", name);
}

/* One test: a condition that must hold, and a sentence. */
#define ok(condition, ...) tap_ok(!!(condition), __FILE__, __LINE__, #condition, __VA_ARGS__)

static inline void skip(const char *name, const char *why)
{
    char extra[600];
    snprintf(extra, sizeof extra, " # SKIP %.560s", why);
    tap_report(1, extra, name);
}

static inline int done(void)
{
    printf("1..%d\n", tap_count);
    return tap_failed ? 1 : 0;
}

#endif
