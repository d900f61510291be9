/* Many threads: starts from one spec, waits that others end, the program's own children and signals undisturbed.
 *
 * tests/run: timeout=120 vm=root
 */
#include <errno.h>
#include <ringfence.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"

enum { THREADS = 16, ROUNDS = 8 };

static ringfence_spec *shared;
static volatile sig_atomic_t chld_signals;
static int failures;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void on_chld(int number)
{
    (void)number;
    chld_signals++;
}

static void *starter(void *argument)
{
    for (int i = 0; i < ROUNDS; i++) {
        ringfence_error *err = NULL;
        ringfence_output *output = NULL;
        char input[32], wanted[64];
        snprintf(input, sizeof input, "%ld-%d", (long)argument, i);
        snprintf(wanted, sizeof wanted, "<%s>", input);
        int result = ringfence_run(shared, input, strlen(input), 30000, &output, &err);
        if (result < 0 || strcmp(ringfence_output_stdout(output), wanted) || ringfence_output_exit_code(output) != 3) {
            note("%s: %s", input, result < 0 ? ringfence_error_message(err) : ringfence_output_stdout(output));
            __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
        }
        ringfence_error_free(err);
        ringfence_output_free(output);
    }
    return NULL;
}

static void parallel_starts(void)
{
    pthread_t threads[THREADS];
    shared = ringfence_spec_from_json("{\"argv\":[\"sh\",\"-c\",\"printf '<'; cat; printf '>'; exit 3\"],"
                                      "\"stdin\":\"pipe\",\"stdout\":\"pipe\",\"stderr\":\"pipe\"}", NULL);
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, starter, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ok(failures == 0, "%d containers from %d threads and one spec, %d failed", THREADS * ROUNDS, THREADS, failures);
    ringfence_spec_free(shared);
}

struct waiting {
    ringfence_container *container;
    ringfence_process *process;
    int result;
    int kind;
    double ended;
};

static void *wait_process(void *argument)
{
    struct waiting *w = argument;
    ringfence_error *err = NULL;
    w->result = ringfence_process_wait(w->process, -1, &err);
    w->kind = ringfence_error_kind(err);
    w->ended = now();
    ringfence_error_free(err);
    return NULL;
}

static void *wait_container(void *argument)
{
    struct waiting *w = argument;
    ringfence_error *err = NULL;
    w->result = ringfence_container_wait(w->container, -1, &err);
    w->kind = ringfence_error_kind(err);
    w->ended = now();
    ringfence_error_free(err);
    return NULL;
}

static struct waiting begin(pthread_t *thread, struct waiting *w, void *(*body)(void *))
{
    ringfence_spec *spec = ringfence_spec_from_json("{\"argv\":[\"sleep\",\"1000\"]}", NULL);
    ringfence_error *err = NULL;
    memset(w, 0, sizeof *w);
    w->result = 99;
    if (ringfence_container_start(spec, &w->container, &err) < 0 || ringfence_container_main(w->container, &w->process, &err) < 0)
        note("%s", ringfence_error_message(err));
    ringfence_spec_free(spec);
    pthread_create(thread, NULL, body, w);
    usleep(200000);
    return *w;
}

static void waits(void)
{
    pthread_t thread;
    struct waiting w;
    double started;

    begin(&thread, &w, wait_process);
    started = now();
    ok(ringfence_process_cancel_waits(w.process, NULL) == 0, "cancel a wait");
    pthread_join(thread, NULL);
    ok(w.result == -1 && w.kind == RINGFENCE_KIND_CLOSED && w.ended - started < 1, "the waiting thread gets CLOSED at once");
    ok(ringfence_process_wait(w.process, 5000, NULL) == -1, "and so does a later one");
    ringfence_process_free(w.process);
    ringfence_container_free(w.container);

    begin(&thread, &w, wait_process);
    started = now();
    ok(ringfence_container_close(w.container, 5000, NULL) == 0, "close while another thread waits for the process");
    pthread_join(thread, NULL);
    ok(w.ended - started < 2 && (w.result == 1 || w.kind == RINGFENCE_KIND_CLOSED), "that thread returns");
    ok(ringfence_process_signal(w.process) == SIGKILL, "the process was killed");
    ringfence_process_free(w.process);
    ringfence_container_free(w.container);

    begin(&thread, &w, wait_container);
    started = now();
    ok(ringfence_container_close(w.container, 5000, NULL) == 0, "close while another thread waits for the end");
    ringfence_container_free(w.container);
    pthread_join(thread, NULL);
    ok(w.ended - started < 2 && (w.result == 1 || w.kind == RINGFENCE_KIND_CLOSED), "that thread returns, the handle is freed");
    ringfence_process_free(w.process);

    begin(&thread, &w, wait_container);
    started = now();
    ringfence_container_free(w.container);
    pthread_join(thread, NULL);
    ok(w.ended - started < 2, "free without close, while another thread waits for the end, kills");
    ok(ringfence_process_wait(w.process, 5000, NULL) == 1 && ringfence_process_signal(w.process) == SIGKILL, "it was killed");
    ringfence_process_free(w.process);
}

static volatile int stop_changing;

static void *change(void *argument)
{
    while (!stop_changing) {
        int result = ringfence_spec_set(argument, "env", "A=b", NULL);
        if (result < 0 && errno != EBUSY)
            __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void one_spec_two_threads(void)
{
    ringfence_spec *spec = ringfence_spec_new();
    pthread_t threads[2];
    failures = 0;
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, change, spec);
    for (int i = 0; i < 2000; i++) {
        char *text = ringfence_spec_to_json(spec, NULL);
        if (!text && errno != EBUSY)
            __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
        ringfence_string_free(text);
    }
    stop_changing = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ok(failures == 0, "a spec that three threads use gives EBUSY and nothing else");
    ringfence_spec_free(spec);
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_chld}, seen;
    sigset_t before, after;
    sigaction(SIGCHLD, &action, NULL);
    pthread_sigmask(SIG_SETMASK, NULL, &before);

    one_spec_two_threads();
    parallel_starts();
    waits();

    errno = 0;
    ok(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "no child was ever to be seen");
    ok(chld_signals == 0, "no SIGCHLD");
    sigaction(SIGCHLD, NULL, &seen);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    int changed = seen.sa_handler != on_chld;
    for (int number = 1; number < 32; number++)
        changed += sigismember(&before, number) != sigismember(&after, number);
    ok(changed == 0, "handler and mask are the program's");
    return done();
}
