/*
 *     musl DIRECTORY
 *
 * No attack: what a program that is linked with another C library does, as many images have them (Alpine), is to go on under the filters.
 * Threads, timers, files and time, by the calls of that library, and sockets, as far as there are any. It prints one line for each.
 */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int count;

static void *thread(void *argument)
{
    pthread_mutex_lock(&lock);
    count++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    return argument;
}

static int threads(void)
{
    pthread_t made[8];
    for (int i = 0; i < 8; i++)
        if (pthread_create(&made[i], NULL, thread, NULL) != 0)
            return 0;
    pthread_mutex_lock(&lock);
    while (count < 8)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < 8; i++)
        pthread_join(made[i], NULL);
    return 1;
}

static int timers(void)
{
    const struct timespec soon = {0, 2000000};
    const struct itimerspec once = {.it_value = soon};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    sigset_t set;
    timer_t timer;
    uint64_t passed = 0;
    int number, fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return nanosleep(&soon, NULL) == 0 && timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 &&
           timer_settime(timer, 0, &once, NULL) == 0 && sigwait(&set, &number) == 0 && number == SIGUSR1 &&
           timerfd_settime(fd, 0, &once, NULL) == 0 && read(fd, &passed, sizeof passed) == 8 && passed == 1;
}

static int files(const char *directory)
{
    char path[4096], other[4096];
    struct stat seen;
    snprintf(path, sizeof path, "%s/file", directory);
    snprintf(other, sizeof other, "%s/other", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, "text", 4) != 4 || fsync(fd) < 0 || fchmod(fd, 0640) < 0 || rename(path, other) < 0)
        return 0;
    char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    return map != MAP_FAILED && memcmp(map, "text", 4) == 0 && stat(other, &seen) == 0 && seen.st_size == 4 &&
           (seen.st_mode & 07777) == 0640 && unlink(other) == 0;
}

static int processes(void)
{
    int status, ends[2];
    char byte = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return 0;
    pid_t child = fork();
    if (child == 0)
        _exit(write(ends[1], "x", 1) == 1 ? 7 : 1);
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7 && read(ends[0], &byte, 1) == 1;
}

static int polled(void)
{
    int pair[2], set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &event) == 0 &&
           send(pair[1], "x", 1, 0) == 1 && epoll_wait(set, &event, 1, 1000) == 1;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    printf("threads %d\n", threads());
    printf("timers %d\n", timers());
    printf("files %d\n", files(argv[1]));
    printf("processes %d\n", processes());
    printf("polled %d\n", polled());
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    printf("internet %s\n", made >= 0 ? "made" : strerror(errno));
    return 0;
}
