/* Threads of the program inside the namespaces of a container. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <ringfence.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failed.h"

static ringfence_container *container;

static int name_is(void *wanted)
{
    char name[65] = "";
    gethostname(name, sizeof name);
    return !strcmp(name, wanted);
}

/* A server on a port that the program itself does not have. */
static int listening(void *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(*(int *)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0)
        return -1;
    return fd;
}

static int is_a_file(void *path)
{
    struct stat found;
    return stat(path, &found) == 0 && S_ISREG(found.st_mode);
}

static void *joins(void *unused)
{
    (void)unused;
    return ringfence_container_join(container, "uts, net", NULL) == 0 && name_is("inside") ? container : NULL;
}

int main(void)
{
    ringfence_spec *spec = ringfence_spec_from_json("{\"hostname\": \"inside\", \"files\": {\"/etc/ringfence-enter\": \"x\"}}", &err);
    if (ringfence_container_start(spec, &container, &err) < 0) {
        ok(0, "start: %s", ringfence_error_message(err));
        return done();
    }
    int result = -5;
    ok(failed(ringfence_container_enter(container, "pid", name_is, "inside", &result, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "pid");
    ok(failed(ringfence_container_enter(container, "nonsense", name_is, "inside", &result, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "an unknown kind");
    ok(failed(ringfence_container_enter(container, "", name_is, "inside", &result, &err), RINGFENCE_KIND_INVALID_ARGUMENT), "no kind");
    if (geteuid() != 0) {
        ok(failed(ringfence_container_enter(container, "uts", name_is, "inside", &result, &err), RINGFENCE_KIND_PERMISSION_DENIED), "refused");
        ok(failed(ringfence_container_join(container, "uts", &err), RINGFENCE_KIND_PERMISSION_DENIED), "refused for good");
        ok(result == -5, "outputs stay as they were");
    } else {
        ok(ringfence_container_enter(container, "uts", name_is, "inside", &result, &err) == 0 && result == 1, "its host name");
        ok(!name_is("inside"), "the calling thread is where it was");
        int port = 80;
        ok(ringfence_container_enter(container, "net", listening, &port, &result, &err) == 0 && result >= 0, "its port 80");
        struct sockaddr_in address;
        socklen_t size = sizeof address;
        ok(getsockname(result, (struct sockaddr *)&address, &size) == 0 && ntohs(address.sin_port) == 80, "a socket that stays");
        close(result);
        ok(ringfence_container_enter(container, "mnt", is_a_file, "/etc/ringfence-enter", &result, &err) == 0 && result == 1 &&
               !is_a_file("/etc/ringfence-enter"),
           "its files");
        ok(ringfence_container_enter(container, "uts", name_is, "inside", NULL, NULL) == 0, "no place for what it returns");
        pthread_t thread;
        void *joined = NULL;
        ok(pthread_create(&thread, NULL, joins, NULL) == 0 && pthread_join(thread, &joined) == 0 && joined && !name_is("inside"),
           "a thread that joins for good");
    }
    ok(ringfence_container_close(container, 30000, &err) == 0, "close");
    ok(failed(ringfence_container_enter(container, "uts", name_is, "inside", &result, &err), RINGFENCE_KIND_CLOSED), "closed");
    ringfence_container_free(container);
    ringfence_spec_free(spec);
    return done();
}
