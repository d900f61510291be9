/* Makes a system call many times and prints how many nanoseconds that took: the payload of the benchmark of filters. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    long count = atol(argv[2]);
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    char byte;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (strcmp(argv[1], "getppid") == 0) {
        for (long i = 0; i < count; i++)
            syscall(SYS_getppid);
    } else if (strcmp(argv[1], "read") == 0) {
        for (long i = 0; i < count; i++)
            if (read(zero, &byte, 1) != 1)
                return 1;
    } else if (strcmp(argv[1], "openat") == 0) {
        for (long i = 0; i < count; i++) {
            int fd = openat(AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC);
            if (fd < 0)
                return 1;
            close(fd);
        }
    } else {
        return 2;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%lld\n", (end.tv_sec - begin.tv_sec) * 1000000000LL + (end.tv_nsec - begin.tv_nsec));
    return 0;
}
