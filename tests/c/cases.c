/* Runs the language-neutral cases of tests/cases (its README has the format) through the C interface.
 *
 * tests/run: timeout=600 vm=root parts=2
 *
 * cases [TEXT]: all, or those whose name contains the text. In the emulated guest every fourth: there Rust and Python run all of them.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <ringfence.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "tap.h"

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return NULL;
    size_t size = 0, got;
    char *text = NULL;
    do {
        text = realloc(text, size + 65537);
        got = fread(text + size, 1, 65536, file);
        size += got;
    } while (got);
    text[size] = 0;
    fclose(file);
    return text;
}

static char *replace(char *text, const char *what, const char *with)
{
    char *found;
    while ((found = strstr(text, what))) {
        char *longer = malloc(strlen(text) + strlen(with) + 1);
        sprintf(longer, "%.*s%s%s", (int)(found - text), text, with, found + strlen(what));
        free(text);
        text = longer;
    }
    return text;
}

/* The number of a block device of this machine: the first by name. */
static void a_disk(char number[32])
{
    struct dirent **found;
    int count = scandir("/sys/block", &found, NULL, alphasort);
    number[0] = 0;
    for (int i = 0; i < count; i++) {
        char path[300];
        snprintf(path, sizeof path, "/sys/block/%s/dev", found[i]->d_name);
        FILE *file = found[i]->d_name[0] != '.' && !number[0] ? fopen(path, "r") : NULL;
        if (file) {
            if (fgets(number, 32, file))
                number[strcspn(number, "\n")] = 0;
            fclose(file);
        }
        free(found[i]);
    }
    if (count >= 0)
        free(found);
}

/* The number of the disk that has the host's programs; empty where none has. */
static void disk_of_programs(char number[32])
{
    struct stat programs;
    char path[100];
    number[0] = 0;
    if (stat("/usr/bin", &programs) != 0)
        return;
    int length = snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(programs.st_dev), minor(programs.st_dev));
    snprintf(path + length, sizeof path - (size_t)length, "/partition");
    int is_part = !access(path, F_OK);
    snprintf(path + length, sizeof path - (size_t)length, is_part ? "/../dev" : "/dev");
    FILE *file = fopen(path, "r");
    if (file && fgets(number, 32, file))
        number[strcspn(number, "\n")] = 0;
    if (file)
        fclose(file);
}

/* Why the case cannot run here, when that is what the machine or an error says. */
static char why[2048];

/* What tests/lib/machine.py has made for the case, and where it ends. */
static struct {
    pid_t program;
    int until;
    int count;
    char keys[8][64], values[8][512];
} setup;

/* Has it make what the case needs of the machine. */
static void set_up(const char *directory, const char *name)
{
    char path[4096], line[600], *words[] = {"python3", path, (char *)name, NULL};
    int to[2], from[2];
    posix_spawn_file_actions_t actions;
    snprintf(path, sizeof path, "%s/../lib/machine.py", directory);
    setup.program = -1, setup.count = 0;
    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
        return;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    if (posix_spawnp(&setup.program, words[0], &actions, NULL, words, environ))
        setup.program = -1;
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]), close(from[1]);
    setup.until = to[1];
    FILE *said = fdopen(from[0], "r");
    while (fgets(line, sizeof line, said) && *line != '\n' && setup.count < 8) {
        char *value = line + strcspn(line, " ");
        value[strcspn(value, "\n")] = 0;
        snprintf(setup.values[setup.count], sizeof setup.values[0], "%s", *value ? value + 1 : value);
        snprintf(setup.keys[setup.count++], sizeof setup.keys[0], "${%.*s}", (int)strcspn(line, " "), line);
    }
    fclose(said);
    if (setup.count && !strcmp(setup.keys[0], "${SKIP}"))
        snprintf(why, sizeof why, "%s", setup.values[0]);
}

/* It undoes it when its stdin ends. */
static int undo_setup(void)
{
    int status;
    close(setup.until);
    return waitpid(setup.program, &status, 0) == setup.program && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static char *fill_in(json value, const char *tmp, const char *directory)
{
    static const char *kinds[] = {"mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"};
    char *text = replace(strndup(value.at, value.length), "${TMP}", tmp);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char what[32], path[64], link[64] = "";
        snprintf(what, sizeof what, "${NS_%s}", kinds[i]);
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        ssize_t length = readlink(path, link, sizeof link - 1);
        link[length < 0 ? 0 : length] = 0;
        text = replace(text, what, link);
    }
    for (int i = 0; i < setup.count; i++)
        text = replace(text, setup.keys[i], setup.values[i]);
    char disk[32], id[32];
    snprintf(id, sizeof id, "%d", getpid());
    text = replace(text, "${ID}", id);
    a_disk(disk);
    text = replace(text, "${DISK}", disk);
    text = replace(text, "${CASES}", directory);
    text = replace(text, "${FUSE}", getenv("RINGFENCE_TEST_FUSE") ? getenv("RINGFENCE_TEST_FUSE") : "/dev/fuse");
    disk_of_programs(disk);
    if (!*disk && strstr(text, "${USR_DISK}"))
        snprintf(why, sizeof why, "/usr is on no disk of its own");
    return replace(text, "${USR_DISK}", disk);
}

/* Makes the directories above a path, then the file, or the directory if there is no text. */
static void make(const char *path, const char *text)
{
    char *copy = strdup(path);
    for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        mkdir(copy, 0755);
        *p = '/';
    }
    if (text) {
        FILE *file = fopen(copy, "w");
        fputs(text, file);
        fclose(file);
    } else {
        mkdir(copy, 0755);
    }
    free(copy);
}

static void remove_all(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char below[4096];
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && unlink(below))
            remove_all(below);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

static int matches(const char *text, const char *pattern)
{
    regex_t compiled;
    if (regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB)) {
        note("bad pattern: %s", pattern);
        return 0;
    }
    int found = !regexec(&compiled, text, 0, NULL, 0);
    regfree(&compiled);
    return found;
}

static int good;

static void expect(int holds, const char *what, const char *wanted, const char *seen)
{
    if (!holds) {
        good = 0;
        note("%s: wanted %s, seen %s", what, wanted, seen ? seen : "nothing");
    }
}

static void expect_text(json expected, const char *key, const char *seen)
{
    char *wanted = json_text(json_get(expected, key));
    if (wanted)
        expect(seen && !strcmp(wanted, seen), key, wanted, seen);
    free(wanted);
}

static void expect_number(json expected, const char *key, long fallback, long seen)
{
    char *wanted = json_text(json_get(expected, key));
    char text[32];
    snprintf(text, sizeof text, "%ld", seen);
    if (wanted || fallback >= 0)
        expect((wanted ? atol(wanted) : fallback) == seen, key, wanted ? wanted : "0", text);
    free(wanted);
}

static void expect_match(json expected, const char *key, const char *seen)
{
    char *pattern = json_text(json_get(expected, key));
    if (pattern)
        expect(seen && matches(seen, pattern), key, pattern, seen);
    free(pattern);
}

/* Each text of a list must be in what was seen, or must not. */
static void expect_texts(json expected, const char *key, const char *seen, int there)
{
    size_t position = 0;
    json list = json_get(expected, key);
    for (json text; (text = json_next(list, &position)).at;) {
        char *wanted = json_text(text);
        expect(!!strstr(seen, wanted) == there, key, wanted, seen);
        free(wanted);
    }
}

static int has(json list, const char *wanted)
{
    size_t position = 0;
    int found = 0;
    for (json text; !found && wanted && (text = json_next(list, &position)).at;) {
        char *one = json_text(text);
        found = !strcmp(one, wanted);
        free(one);
    }
    return found;
}

/* Whether it is the error which is as good as what the case expects. */
static int is_unless(json test, const ringfence_error *error)
{
    json other = json_get(test, "unless");
    char *kind = json_text(json_get(other, "kind")), *field = json_text(json_get(other, "field"));
    char *part = json_text(json_get(other, "has"));
    const char *seen = ringfence_error_field(error);
    int is = kind && field && part && !strcmp(ringfence_error_kind_name(error), kind) && seen && !strcmp(seen, field) &&
             strstr(ringfence_error_message(error), part);
    free(kind), free(field), free(part);
    return is;
}

static void check_error(json test, json expected, const ringfence_error *error)
{
    if (is_unless(test, error))
        return;
    json wanted = json_get(expected, "error");
    const char *text = ringfence_error_json(error), *field = ringfence_error_field(error);
    int kind = ringfence_error_kind(error);
    json whole = {text, text ? strlen(text) : 0};
    if (has(json_get(test, "needs"), field) && (kind == RINGFENCE_KIND_UNSUPPORTED || kind == RINGFENCE_KIND_PERMISSION_DENIED)) {
        snprintf(why, sizeof why, "%s", ringfence_error_message(error));
        return;
    }
    if (!wanted.at)
        return expect(0, "result", "no error", ringfence_error_message(error));
    char *name = json_text(json_get(whole, "errno_name")), *part = json_text(json_get(wanted, "has"));
    expect_text(wanted, "kind", ringfence_error_kind_name(error));
    expect_text(wanted, "field", field);
    expect_text(wanted, "errno", name);
    if (part)
        expect(strstr(ringfence_error_message(error), part) != NULL, "message", part, ringfence_error_message(error));
    if (!good)
        note("%s", ringfence_error_message(error));
    free(name), free(part);
}

static void check_output(json expected, const ringfence_output *output)
{
    const char *out = ringfence_output_stdout(output), *errors = ringfence_output_stderr(output);
    int by_code = !json_get(expected, "signal").at;
    if (json_get(expected, "error").at)
        return expect(0, "result", "an error", "none");
    expect_number(expected, "code", by_code ? 0 : -1, ringfence_output_exit_code(output));
    expect_number(expected, "signal", by_code ? 0 : -1, ringfence_output_signal(output));
    expect_text(expected, "reason", ringfence_reason_name(ringfence_output_reason(output)));
    expect_text(expected, "stdout", out);
    expect_text(expected, "stderr", errors);
    expect_match(expected, "stdout_matches", out);
    expect_match(expected, "stderr_matches", errors);
    expect_texts(expected, "stdout_has", out, 1);
    expect_texts(expected, "stdout_lacks", out, 0);
    expect_texts(expected, "stderr_has", errors, 1);
    if (!good)
        note("stdout: %s\nstderr: %s\nexit code %d, signal %d", out, errors, ringfence_output_exit_code(output),
             ringfence_output_signal(output));
}

/* A figure by its name, which may have dots: of a device, a size, a resource. */
static char *figure(json whole, const char *name)
{
    const char *dot = strchr(name, '.'), *last = strrchr(name, '.');
    if (!dot)
        return json_text(json_get(whole, name));
    char parts[4][64] = {""};
    snprintf(parts[0], sizeof parts[0], "%.*s", (int)(dot - name), name);
    /* "pressure.memory.some.total_usec", but "io.8:0.read_bytes" and "net.eth0.10.rx_bytes". */
    const char *middle = !strcmp(parts[0], "pressure") ? strchr(dot + 1, '.') : last;
    snprintf(parts[1], sizeof parts[1], "%.*s", (int)(middle - dot - 1), dot + 1);
    if (middle < last)
        snprintf(parts[2], sizeof parts[2], "%.*s", (int)(last - middle - 1), middle + 1);
    snprintf(parts[3], sizeof parts[3], "%s", last + 1);
    for (int i = 0; i < 4; i++)
        if (*parts[i])
            whole = json_get(whole, parts[i]);
    return json_text(whole);
}

static void check_usage(json expected, const char *usage)
{
    size_t position = 0;
    json figures = json_get(expected, "usage"), whole = {usage, usage ? strlen(usage) : 0};
    for (json key; (key = json_next(figures, &position)).at;) {
        char *name = json_text(key);
        json bounds = json_next(figures, &position);
        char *min = json_text(json_get(bounds, "min")), *max = json_text(json_get(bounds, "max"));
        char *seen = figure(whole, name);
        if (min)
            expect(seen && *seen != 'n' && atoll(seen) >= atoll(min), name, min, seen);
        if (max)
            expect(seen && *seen != 'n' && atoll(seen) <= atoll(max), name, max, seen);
        free(name), free(min), free(max), free(seen);
    }
}

static void check_files(json expected, const char *tmp)
{
    size_t position = 0;
    json files = json_get(expected, "files");
    for (json key; (key = json_next(files, &position)).at;) {
        char *name = json_text(key), *wanted = json_text(json_next(files, &position)), path[4096];
        snprintf(path, sizeof path, "%s/%s", tmp, name);
        char *seen = read_file(path);
        expect(seen && !strcmp(seen, wanted), name, wanted, seen);
        free(name), free(wanted), free(seen);
    }
}

/* The result of a call against what a case or a command of it expects; takes both. */
static void check(json test, json expected, int result, ringfence_output *output, ringfence_error *err)
{
    if (result < 0)
        check_error(test, expected, err);
    else if (output)
        check_output(expected, output);
    else
        expect(0, "result", "an end in time", "none");
    ringfence_output_free(output);
    ringfence_error_free(err);
}

/* As ringfence_run(), and the usage after the end. */
static int run_for_usage(ringfence_spec *spec, const char *input, int timeout, char **usage, ringfence_output **output,
                         ringfence_error **err)
{
    ringfence_container *container = NULL;
    ringfence_process *process = NULL;
    ringfence_spec_set(spec, "stdout", "pipe", NULL);
    ringfence_spec_set(spec, "stderr", "pipe", NULL);
    int result = ringfence_container_start(spec, &container, err);
    if (result == 0)
        result = ringfence_container_main(container, &process, err);
    if (result == 0)
        result = ringfence_process_communicate(process, input, input ? strlen(input) : 0, timeout, output, err);
    if (result >= 0)
        *usage = ringfence_container_usage_json(container, NULL);
    ringfence_process_free(process);
    ringfence_container_free(container);
    return result;
}

/* A command of the container, or of a group inside; `output` is where what it prints goes. */
static int start_command(ringfence_container *container, const char *group, json step, const char *output,
                         ringfence_process **process, ringfence_error **err)
{
    ringfence_command *command = NULL;
    size_t position = 0;
    int result = 0;
    json words = json_get(step, "argv"), fields = json_get(step, "set");
    for (json word; result == 0 && (word = json_next(words, &position)).at;) {
        char *text = json_text(word);
        if (command)
            result = ringfence_command_arg(command, text, err);
        else
            command = ringfence_command_new(text);
        free(text);
    }
    position = 0;
    for (json key; result == 0 && (key = json_next(fields, &position)).at;) {
        char *name = json_text(key), *value = json_text(json_next(fields, &position));
        result = ringfence_command_set(command, name, value, err);
        free(name), free(value);
    }
    if (result == 0)
        result = ringfence_command_set(command, "stdin", json_get(step, "input").at ? "pipe" : "null", err);
    if (result == 0)
        result = ringfence_command_set(command, "stdout", output, err);
    if (result == 0)
        result = ringfence_command_set(command, "stderr", output, err);
    if (result == 0 && group)
        result = ringfence_command_set(command, "cgroup", group, err);
    if (result == 0)
        result = ringfence_container_spawn(container, command, process, err);
    ringfence_command_free(command);
    return result;
}

static int run_command(ringfence_container *container, json step, int timeout, ringfence_output **output, ringfence_error **err)
{
    ringfence_process *process = NULL;
    char *input = json_text(json_get(step, "input"));
    int result = start_command(container, NULL, step, "pipe", &process, err);
    if (result == 0)
        result = ringfence_process_communicate(process, input, input ? strlen(input) : 0, timeout, output, err);
    ringfence_process_free(process);
    free(input);
    return result;
}

/* A step that changes the running container. */
static void update(json test, ringfence_container *container, json change, json expected)
{
    ringfence_error *err = NULL;
    char *text = strndup(change.at, change.length);
    if (ringfence_container_update(container, text, &err) < 0) {
        check_error(test, expected, err);
    } else if (json_get(expected, "error").at) {
        expect(0, "result", "an error", "none");
    } else if (json_get(expected, "usage").at) {
        char *usage = ringfence_container_usage_json(container, NULL);
        check_usage(expected, usage);
        ringfence_string_free(usage);
    }
    ringfence_error_free(err);
    free(text);
}

/* Containers that share namespaces. */
static void in_pod(json test, int timeout)
{
    enum { MOST = 8 };
    ringfence_container *all[MOST] = {0};
    ringfence_pod *pod = NULL;
    ringfence_error *err = NULL;
    json given = json_get(test, "pod"), specs = json_get(test, "containers"), steps = json_get(test, "commands");
    json expected = json_get(test, "expect");
    char *text = strndup(given.at, given.length), *share = json_text(json_get(test, "share"));
    ringfence_spec *spec = ringfence_spec_from_json(text, &err);
    int count = 0, result = spec ? ringfence_pod_start(spec, share, &pod, &err) : -1;
    size_t position = 0;
    ringfence_spec_free(spec);
    free(text), free(share);
    for (json one; count < MOST && result == 0 && (one = json_next(specs, &position)).at;) {
        text = strndup(one.at, one.length);
        spec = ringfence_spec_from_json(text, &err);
        result = spec ? ringfence_pod_container(pod, spec, &all[count++], &err) : -1;
        ringfence_spec_free(spec);
        free(text);
    }
    if (result < 0)
        check_error(test, expected, err);
    else if (json_get(expected, "error").at)
        expect(0, "result", "an error", "none");
    ringfence_error_free(err);
    position = 0;
    for (json step; good && !*why && result >= 0 && (step = json_next(steps, &position)).at;) {
        char *place = json_text(json_get(step, "in"));
        ringfence_output *output = NULL;
        err = NULL;
        int ran = run_command(all[place ? atoi(place) : 0], step, timeout, &output, &err);
        check(test, json_get(step, "expect"), ran, output, err);
        free(place);
    }
    err = NULL;
    if (pod && ringfence_pod_close(pod, timeout, &err) < 0)
        expect(0, "close", "success", ringfence_error_message(err));
    ringfence_error_free(err);
    while (count > 0)
        ringfence_container_free(all[--count]);
    ringfence_pod_free(pod);
}

/* Containers that need each other. */
static void in_group(json test, int timeout)
{
    ringfence_error *err = NULL;
    json given = json_get(test, "group"), steps = json_get(test, "commands"), expected = json_get(test, "expect");
    json order = json_get(expected, "order");
    char *text = strndup(given.at, given.length);
    ringfence_group *group = ringfence_group_new(NULL, NULL);
    int result = ringfence_group_merge_json(group, text, &err);
    free(text);
    if (result == 0)
        result = ringfence_group_start(group, timeout, &err);
    if (result < 0)
        check_error(test, expected, err);
    else if (json_get(expected, "error").at)
        expect(0, "result", "an error", "none");
    ringfence_error_free(err);
    if (order.at && result == 0) {
        char *seen = ringfence_group_order_json(group, NULL), *wanted = strndup(order.at, order.length), *to = wanted;
        for (const char *from = wanted; (*to = *from); from++)
            to += *from != ' ';
        expect(seen && !strcmp(wanted, seen), "order", wanted, seen);
        ringfence_string_free(seen);
        free(wanted);
    }
    size_t position = 0;
    for (json step; good && !*why && result >= 0 && (step = json_next(steps, &position)).at;) {
        char *name = json_text(json_get(step, "in"));
        ringfence_output *output = NULL;
        ringfence_container *container = NULL;
        err = NULL;
        int ran = ringfence_group_container(group, name, &container, &err);
        if (ran == 0)
            ran = run_command(container, step, timeout, &output, &err);
        check(test, json_get(step, "expect"), ran, output, err);
        ringfence_container_free(container);
        free(name);
    }
    err = NULL;
    if (ringfence_group_close(group, timeout, &err) < 0)
        expect(0, "close", "success", ringfence_error_message(err));
    ringfence_error_free(err);
    ringfence_group_free(group);
}

/* Removes the volumes that a case has made. */
static void remove_volumes(json test)
{
    size_t at = 0;
    for (json one; (one = json_next(json_get(test, "volumes"), &at)).at;) {
        ringfence_error *err = NULL;
        char *name = json_text(one);
        if (ringfence_volume_remove(name, &err) < 0)
            expect(0, "remove volume", "success", ringfence_error_message(err));
        ringfence_error_free(err);
        free(name);
    }
}

/* Who wants a part of what rivals share: a container, or a group inside one. */
typedef struct {
    ringfence_container *container;
    char group[16];
} rival;

/* What each has had, once each has had its share of so much, and all together have had so much. */
static int had(const rival *all, const double *wanted, int count, const char *name, double each, uint64_t together, time_t deadline,
               uint64_t *now)
{
    for (;; usleep(10000)) {
        uint64_t sum = 0;
        int enough = 1;
        for (int i = 0; i < count; i++) {
            char *usage = *all[i].group ? ringfence_container_group_usage_json(all[i].container, all[i].group, NULL)
                                        : ringfence_container_usage_json(all[i].container, NULL);
            char *seen = figure((json){usage, usage ? strlen(usage) : 0}, name);
            now[i] = seen ? strtoull(seen, NULL, 10) : 0;
            free(seen);
            ringfence_string_free(usage);
            sum += now[i];
            enough = enough && (double)now[i] >= wanted[i] / 100 * each;
        }
        if (enough && sum >= together)
            return 1;
        if (time(NULL) > deadline)
            return 0;
    }
}

enum { MOST = 8 };

/* Starts a rival, or those which are groups inside of one. */
static int start_rival(json given, rival *all, int *count, ringfence_container **container, ringfence_error **err)
{
    json groups = json_get(given, "groups"), fields = groups.at ? json_get(given, "spec") : given;
    char *text = strndup(fields.at, fields.length);
    ringfence_spec *spec = ringfence_spec_from_json(text, err);
    int result = spec ? ringfence_container_start(spec, container, err) : -1;
    ringfence_spec_free(spec);
    free(text);
    if (result == 0 && !groups.at)
        all[(*count)++].container = *container;
    size_t position = 0;
    for (json group; result == 0 && *count < MOST && (group = json_next(groups, &position)).at;) {
        rival *one = &all[(*count)++];
        json limits = json_get(group, "limits");
        ringfence_process *process = NULL;
        one->container = *container;
        snprintf(one->group, sizeof one->group, "g%d", *count);
        text = strndup(limits.at, limits.length);
        result = ringfence_container_group(*container, one->group, text, err);
        if (result == 0)
            result = start_command(*container, one->group, group, "null", &process, err);
        ringfence_process_free(process);
        free(text);
    }
    return result;
}

/* Containers that want the same, a processor if nothing else is said: the share that each gets. */
static void rivals(json test, int timeout)
{
    ringfence_container *containers[MOST] = {0};
    rival all[MOST] = {0};
    ringfence_error *err = NULL;
    json specs = json_get(test, "rivals"), expected = json_get(test, "expect"), shares = json_get(expected, "shares");
    char *within = json_text(json_get(expected, "within")), *of = json_text(json_get(expected, "of"));
    char *given_amount = json_text(json_get(expected, "amount"));
    const char *name = of ? of : "cpu_usage_usec";
    double wanted[MOST] = {0};
    size_t position = 0;
    int count = 0, started = 0;
    for (int i = 0; i < MOST; i++) {
        char *share = json_text(json_next(shares, &position));
        wanted[i] = share ? atof(share) : 0;
        free(share);
    }
    position = 0;
    time_t deadline = time(NULL) + timeout / 1000;
    uint64_t before[MOST] = {0}, after[MOST] = {0}, together = 0, whole = 0;
    uint64_t amount = given_amount ? strtoull(given_amount, NULL, 10) : 1250000;
    for (json given; count < MOST && good && !*why && (given = json_next(specs, &position)).at;)
        if (start_rival(given, all, &count, &containers[started++], &err) < 0)
            check(test, (json){"{}", 2}, -1, NULL, err);
    if (good && !*why) {
        /* The first turns are not like the later ones: each has had its share of as much before it is measured. */
        expect(had(all, wanted, count, name, (double)amount, 0, deadline, before), "rivals", "all run", "not in time");
        for (int i = 0; i < count; i++)
            together += before[i];
        expect(had(all, wanted, count, name, 0, together + amount, deadline, after), "rivals", "enough of it", "not in time");
        for (int i = 0; i < count; i++)
            whole += after[i] - before[i];
        for (int i = 0; i < count; i++) {
            char share[32], seen[32];
            double gained = 100.0 * (double)(after[i] - before[i]) / (double)whole, off = gained - wanted[i];
            double most = within ? atof(within) : wanted[i] / 10;
            snprintf(share, sizeof share, "%.1f", wanted[i]);
            snprintf(seen, sizeof seen, "%.1f", gained);
            expect(off <= most && -off <= most, "share", share, seen);
        }
    }
    free(within), free(of), free(given_amount);
    /* The last first: who is idle ends when the others have left it a processor. */
    while (started > 0)
        ringfence_container_free(containers[--started]);
}

static int is_program(const char *name)
{
    char *path = strdup(getenv("PATH") ? getenv("PATH") : ""), *rest = path, *directory, file[4096];
    int found = 0;
    while (!found && (directory = strsep(&rest, ":"))) {
        snprintf(file, sizeof file, "%s/%s", directory, name);
        found = !access(file, X_OK);
    }
    free(path);
    return found;
}

/* The container of the case, and the one beside it if there is to be one. */
static int start_both(ringfence_spec *spec, json beside, ringfence_container *both[2], ringfence_error **err)
{
    int result = ringfence_container_start(spec, &both[0], err);
    if (result < 0 || !beside.at)
        return result;
    char *text = strndup(beside.at, beside.length);
    ringfence_spec *other = ringfence_spec_from_json(text, err);
    result = other ? ringfence_container_start(other, &both[1], err) : -1;
    ringfence_spec_free(other);
    free(text);
    return result;
}

enum { MAX_NETWORKS = 4 };

/* The networks that are there while the case runs. */
static int start_networks(json list, ringfence_network *networks[MAX_NETWORKS], ringfence_error **err)
{
    size_t at = 0;
    int i = 0;
    for (json one; i < MAX_NETWORKS && (one = json_next(list, &at)).at; i++) {
        char *options = strndup(one.at, one.length);
        int result = ringfence_network_start(options, &networks[i], err);
        free(options);
        if (result < 0)
            return -1;
    }
    return 0;
}

static void stop_networks(ringfence_network *networks[MAX_NETWORKS])
{
    for (int i = 0; i < MAX_NETWORKS; i++) {
        if (networks[i])
            ringfence_network_close(networks[i], 60000, NULL);
        ringfence_network_free(networks[i]);
    }
}

/* A step that waits until the container is ready. */
static void wait_for(json test, ringfence_container *container, json step, json expected)
{
    ringfence_error *err = NULL;
    json conditions = json_get(step, "wait_for"), wanted = json_get(expected, "error");
    char *text = strndup(conditions.at, conditions.length), *seconds = json_text(json_get(step, "timeout"));
    int timeout = seconds ? (int)(atof(seconds) * 1000) : 30000;
    if (ringfence_container_wait_for(container, text, timeout, &err) < 1) {
        size_t at = 0;
        const char *tail = ringfence_error_log_tail(err);
        check_error(test, expected, err);
        for (json word; (word = json_next(json_get(wanted, "log_has"), &at)).at;) {
            char *has = json_text(word);
            expect(tail && strstr(tail, has), "end of the log", has, tail);
            free(has);
        }
    } else {
        expect(!wanted.at, "result", "an error", "ready");
    }
    ringfence_error_free(err);
    free(text), free(seconds);
}

/* What a step told. */
typedef struct {
    char text[65536];
    size_t length;
} told;

static void tell(told *all, const char *text)
{
    if (all->length + strlen(text) < sizeof all->text)
        all->length += (size_t)snprintf(all->text + all->length, sizeof all->text - all->length, "%s", text);
}

static int logs(ringfence_container *container, json options, told *seen, ringfence_error **err)
{
    ringfence_logs *lines = NULL;
    char *text = strndup(options.at, options.length);
    int result = ringfence_container_logs(container, text, &lines, err);
    while (result >= 0 && (result = ringfence_logs_next(lines, -1, err)) == 1)
        tell(seen, ringfence_logs_line(lines, NULL));
    ringfence_logs_free(lines);
    free(text);
    return result;
}

/* What a service at a published port answers, to the end. */
static int asked(ringfence_container *container, const char *port, const char *question, told *seen, ringfence_error **err)
{
    int number = ringfence_container_port(container, (uint16_t)atoi(port), err);
    if (number < 0)
        return -1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t length = strlen(question);
    char text[4096];
    ssize_t n = -1;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 && write(fd, question, length) == (ssize_t)length && shutdown(fd, SHUT_WR) == 0)
        while ((n = read(fd, text, sizeof text - 1)) > 0) {
            text[n] = 0;
            tell(seen, text);
        }
    if (n < 0)
        tell(seen, strerror(errno));
    close(fd);
    return 0;
}

static int processes(ringfence_container *container, told *seen, ringfence_error **err)
{
    char *list = ringfence_container_processes_json(container, err);
    json all = {list, list ? strlen(list) : 0};
    size_t position = 0;
    for (json one; (one = json_next(all, &position)).at;) {
        char *pid = json_text(json_get(one, "pid_inside")), *parent = json_text(json_get(one, "parent_inside"));
        char *name = json_text(json_get(one, "name")), line[128];
        snprintf(line, sizeof line, "%s %s %s\n", pid, strcmp(parent, "null") ? parent : "-", name);
        tell(seen, line);
        free(pid), free(parent), free(name);
    }
    ringfence_string_free(list);
    return list ? 0 : -1;
}

/* A step that is one call, which tells a text or nothing: 0 for a command. */
static int one_call(json test, ringfence_container *container, json step, int timeout, json expected)
{
    static const char *const keys[] = {"logs", "read", "write", "copy_in", "copy_out", "connect", "processes"};
    const char *key = NULL;
    json what = {NULL, 0};
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !what.at; i++)
        what = json_get(step, key = keys[i]);
    if (!what.at)
        return 0;
    ringfence_error *err = NULL;
    told *seen = calloc(1, sizeof *seen);
    size_t position = 0;
    int is_pair = *what.at == '[';
    char *first = json_text(is_pair ? json_next(what, &position) : what), *second = is_pair ? json_text(json_next(what, &position)) : NULL;
    char *text = json_text(json_get(step, "text")), *input = json_text(json_get(step, "input")), *mode = json_text(json_get(step, "mode"));
    int result;
    if (!strcmp(key, "logs"))
        result = logs(container, what, seen, &err);
    else if (!strcmp(key, "read"))
        result = ringfence_container_read_file(container, first, seen->text, sizeof seen->text - 1, &err) < 0 ? -1 : 0;
    else if (!strcmp(key, "write"))
        result = ringfence_container_write_file(container, first, text, strlen(text), mode ? (int)strtol(mode, NULL, 8) : -1, NULL, &err);
    else if (!strcmp(key, "copy_in"))
        result = ringfence_container_copy_in(container, first, second, NULL, NULL, timeout, &err);
    else if (!strcmp(key, "copy_out"))
        result = ringfence_container_copy_out(container, first, second, NULL, timeout, &err);
    else if (!strcmp(key, "connect"))
        result = asked(container, first, input, seen, &err);
    else
        result = processes(container, seen, &err);
    if (result < 0) {
        check_error(test, expected, err);
    } else if (json_get(expected, "error").at) {
        expect(0, "result", "an error", "none");
    } else {
        char *wanted = json_text(json_get(expected, "stdout"));
        expect(!strcmp(wanted ? wanted : "", seen->text), key, wanted ? wanted : "", seen->text);
        free(wanted);
    }
    ringfence_error_free(err);
    free(first), free(second), free(text), free(input), free(mode), free(seen);
    return 1;
}

/* A step that gives a container's link a rate, a delay, losses. */
static void shape(json test, ringfence_network *network, ringfence_container *container, json step, json expected)
{
    ringfence_error *err = NULL;
    json given = json_get(step, "shape");
    char *text = strndup(given.at, given.length), *direction = json_text(json_get(step, "direction"));
    if (ringfence_network_shape(network, container, text, direction, &err) == 0)
        expect(!json_get(expected, "error").at, "result", "an error", "a shape");
    else if (ringfence_error_kind(err) == RINGFENCE_KIND_UNSUPPORTED)
        snprintf(why, sizeof why, "%s", ringfence_error_message(err));
    else
        check_error(test, expected, err);
    ringfence_error_free(err);
    free(text), free(direction);
}

static void run(json test, const char *tmp)
{
    ringfence_error *err = NULL;
    ringfence_container *both[2] = {NULL, NULL};
    ringfence_output *output = NULL;
    json expected = json_get(test, "expect"), given = json_get(test, "spec"), steps = json_get(test, "commands");
    char *spec_text = strndup(given.at ? given.at : "", given.length), *input = json_text(json_get(test, "input"));
    char *seconds = json_text(json_get(test, "timeout")), *usage = NULL;
    int timeout = (seconds ? atoi(seconds) : 30) * 1000, result;

    size_t at = 0;
    for (json name; !*why && (name = json_next(json_get(test, "programs"), &at)).at;) {
        char *program = json_text(name);
        if (!is_program(program))
            snprintf(why, sizeof why, "no %s here", program);
        free(program);
    }
    if (!*why && json_get(test, "rivals").at)
        rivals(test, timeout);
    if (!*why && json_get(test, "pod").at)
        in_pod(test, timeout);
    if (!*why && json_get(test, "group").at) {
        in_group(test, timeout);
        check_files(expected, tmp);
    }
    if (*why || json_get(test, "rivals").at || json_get(test, "pod").at || json_get(test, "group").at) {
        free(spec_text), free(input), free(seconds);
        return;
    }
    ringfence_network *networks[MAX_NETWORKS] = {NULL};
    if (start_networks(json_get(test, "networks"), networks, &err) < 0) {
        check(test, expected, -1, NULL, err);
        stop_networks(networks);
        free(spec_text), free(input), free(seconds);
        return;
    }
    ringfence_spec *spec = ringfence_spec_from_json(spec_text, &err);
    if (!spec) {
        check(test, expected, -1, NULL, err);
    } else if (!steps.at) {
        if (json_get(expected, "usage").at)
            result = run_for_usage(spec, input, timeout, &usage, &output, &err);
        else
            result = ringfence_run(spec, input, input ? strlen(input) : 0, timeout, &output, &err);
        check(test, expected, result, output, err);
        if (!*why)
            check_usage(expected, usage);
    } else if (start_both(spec, json_get(test, "neighbour"), both, &err) < 0) {
        check(test, expected, -1, NULL, err);
    } else {
        size_t position = 0;
        for (json step; good && !*why && (step = json_next(steps, &position)).at;) {
            json change = json_get(step, "update"), wanted = json_get(step, "expect");
            ringfence_container *container = both[json_get(step, "in").at != NULL];
            err = NULL, output = NULL;
            if (change.at) {
                update(test, container, change, wanted);
                continue;
            }
            if (json_get(step, "wait_for").at) {
                wait_for(test, container, step, wanted);
                continue;
            }
            if (json_get(step, "shape").at) {
                shape(test, networks[0], container, step, wanted);
                continue;
            }
            if (one_call(test, container, step, timeout, wanted))
                continue;
            result = run_command(container, step, timeout, &output, &err);
            check(test, wanted, result, output, err);
        }
        for (int i = 0; i < 2 && both[i]; i++) {
            err = NULL;
            if (ringfence_container_close(both[i], timeout, &err) < 0)
                expect(0, "close", "success", ringfence_error_message(err));
            ringfence_error_free(err);
        }
    }
    check_files(expected, tmp);
    ringfence_container_free(both[0]);
    ringfence_container_free(both[1]);
    remove_volumes(test);
    stop_networks(networks);
    ringfence_spec_free(spec);
    ringfence_string_free(usage);
    free(spec_text), free(input), free(seconds);
}

static void run_file(const char *directory, const char *file, const char *only)
{
    char path[4096], name[512];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    char *text = read_file(path);
    json tests = {text, strlen(text)};
    size_t position = 0;
    static int number, seen;
    int part = 0, parts = 1;
    const char *shared = getenv("RINGFENCE_TEST_PART");
    if (shared)
        sscanf(shared, "%d/%d", &part, &parts);
    for (json raw; (raw = json_next(tests, &position)).at;) {
        char *title = json_text(json_get(raw, "name"));
        snprintf(name, sizeof name, "%.*s: %s", (int)strcspn(file, "."), file, title);
        free(title);
        if (only && !strstr(name, only))
            continue;
        /* Rust runs all of them, in the virtual machine and with a delegated group too. */
        const char *tier = getenv("RINGFENCE_TEST_TIER"), *user = getenv("RINGFENCE_TEST_AS");
        int vm = tier && !strcmp(tier, "vm"), delegated = user && !strcmp(user, "delegated");
        if (!only && (vm || delegated) && number++ % 4 && !json_get(raw, "everywhere").at)
            continue;
        if (json_get(raw, "slow").at && delegated)
            continue;
        if (seen++ % parts != part)
            continue;
        char *as = json_text(json_get(raw, "as"));
        if (as && !strcmp(as, "root") != (geteuid() == 0)) {
            skip(name, strcmp(as, "root") ? "only as user" : "only as root");
            free(as);
            continue;
        }
        free(as);
        const char *base = getenv("TMPDIR");
        char tmp[2048];
        snprintf(tmp, sizeof tmp, "%s/case-XXXXXX", base ? base : "/tmp");
        if (!mkdtemp(tmp)) {
            ok(0, "%s: mkdtemp: %s", name, strerror(errno));
            continue;
        }
        chmod(tmp, 0755);
        *why = 0;
        good = 1;
        char *needed = json_text(json_get(raw, "setup"));
        setup.count = 0;
        if (needed)
            set_up(directory, needed);
        char *filled = fill_in(raw, tmp, directory);
        json test = {filled, strlen(filled)}, files = json_get(test, "tmp");
        size_t place = 0;
        for (json key; (key = json_next(files, &place)).at;) {
            char *below = json_text(key), full[4096];
            json value = json_next(files, &place);
            char *content = *value.at == '"' ? json_text(value) : NULL;
            snprintf(full, sizeof full, "%s/%s", tmp, below);
            make(full, content);
            free(below), free(content);
        }
        if (!*why)
            run(test, tmp);
        if (needed)
            expect(undo_setup(), "machine.py", "an end without errors", "another");
        free(needed);
        if (good && *why)
            skip(name, why);
        else
            tap_report(good, "", name);
        free(filled);
        remove_all(tmp);
    }
    free(text);
}

static int is_case(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 5 && !strcmp(entry->d_name + length - 5, ".json");
}

int main(int argc, char **argv)
{
    const char *directory = getenv("RINGFENCE_CASES");
    struct dirent **entries;
    if (!directory)
        directory = "tests/cases";
    umask(022);
    int count = scandir(directory, &entries, is_case, alphasort);
    for (int i = 0; i < count; i++) {
        run_file(directory, entries[i]->d_name, argc > 1 ? argv[1] : NULL);
        free(entries[i]);
    }
    ok(count > 0, "there are cases in %s", directory);
    if (count > 0)
        free(entries);
    return done();
}
