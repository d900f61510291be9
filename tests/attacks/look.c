/*
 * What a program inside sees and can do, one question each. It is static, so that it runs in any root.
 *
 *     look fds                     open descriptors, and where they lead
 *     look cat PATH...             contents
 *     look write PATH TEXT         writes without creating
 *     look stat PATH...            device, inode, mode, number, owner; PATH may be fd:N
 *     look list PATH               names
 *     look open-for-writing DIR    every file below DIR that can be opened for writing
 *     look ids                     uid, gid, and capability sets
 *     look count ARGUMENT...       how many there are, and how long they are together
 *     look environment
 *     look run-as UID PROGRAM...   becomes UID, runs it
 *     look device TYPE MAJOR MINOR makes a node (c or b) where nodes are devices, and opens it
 *     look wait                    until standard input ends
 *     look cover PATH...           mounts a tmpfs over each, then waits
 *     look reopen PATH TEXT        opens PATH (or has it: fd:N) for reading, opens that again for writing, writes TEXT; once more
 *                                  after it has made the mount writable that the directory of PATH is
 *     look leave DIR               leaves two copies of itself: one is set-user-id, the file of the other has CAP_NET_RAW
 */

#define _XOPEN_SOURCE 700
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

extern char **environ;

static int failed(const char *what)
{
    printf("%s: %s\n", what, strerrorname_np(errno));
    return 1;
}

static int fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return failed("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(dir));) {
        char target[4096] = "";
        if (*entry->d_name == '.' || atoi(entry->d_name) == dirfd(dir))
            continue;
        if (readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1) >= 0)
            printf("%s %s\n", entry->d_name, target);
    }
    return 0;
}

/* A mount's nodev is who mounts may take away; so may a file system of one's own have none. */
static int device(char kind, int major, int minor)
{
    static const char *const places[] = {"/dev", "/tmp", "/"};
    int error = 0;
    mount("none", "/tmp", "tmpfs", 0, NULL);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char path[64];
        mount("none", places[i], NULL, MS_REMOUNT | MS_BIND, NULL);
        snprintf(path, sizeof path, "%s/node", places[i]);
        if (mknod(path, (kind == 'b' ? S_IFBLK : S_IFCHR) | 0600, makedev(major, minor)) < 0) {
            error = errno;
            continue;
        }
        int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        error = errno;
        unlink(path);
        if (file >= 0) {
            puts("opened");
            return 0;
        }
    }
    errno = error;
    return failed("device");
}

static int cat(const char *path)
{
    static char data[1 << 16];
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return failed(path);
    for (ssize_t n; (n = read(file, data, sizeof data)) != 0;) {
        if (n < 0)
            return failed(path);
        fwrite(data, 1, n, stdout);
    }
    close(file);
    return 0;
}

static int put(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        return failed(path);
    puts("written");
    return 0;
}

static int reopen(const char *path, const char *text)
{
    char again[64];
    int fd, error = 0;
    if (sscanf(path, "fd:%d", &fd) != 1)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(again, sizeof again, "/proc/self/fd/%d", fd);
    for (int remounted = 0; remounted < 2; remounted++) {
        int file = open(again, O_WRONLY | O_TRUNC | O_CLOEXEC);
        error = errno;
        if (file >= 0 && write(file, text, strlen(text)) > 0) {
            puts(remounted ? "written after a remount" : "written");
            return 0;
        }
        char point[256];
        snprintf(point, sizeof point, "%s", path);
        if (strrchr(point, '/'))
            *strrchr(point, '/') = 0;
        mount("none", point, NULL, MS_REMOUNT | MS_BIND, NULL);
    }
    errno = error;
    return failed("reopen");
}

static int leave(const char *directory)
{
    static char program[1 << 21];
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ssize_t length = read(self, program, sizeof program);
    for (int i = 0; i < 2; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", directory, i ? "capable" : "set-user-id");
        int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
        if (length <= 0 || file < 0 || write(file, program, length) != length)
            return failed(path);
        struct vfs_cap_data data = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
                                    .data = {{.permitted = 1 << CAP_NET_RAW}}};
        int done = i ? fsetxattr(file, "security.capability", &data, sizeof data, 0) : fchmod(file, 06755);
        close(file);
        if (done < 0)
            failed(path);
        else
            puts(path);
    }
    return 0;
}

static int status(const char *path)
{
    struct stat seen;
    int fd;
    if ((sscanf(path, "fd:%d", &fd) == 1 ? fstat(fd, &seen) : stat(path, &seen)) < 0)
        return failed(path);
    printf("%u:%u %lu %o %u:%u %u:%u\n", major(seen.st_dev), minor(seen.st_dev), (unsigned long)seen.st_ino, seen.st_mode,
           major(seen.st_rdev), minor(seen.st_rdev), seen.st_uid, seen.st_gid);
    return 0;
}

static int list(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return failed(path);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            puts(entry->d_name);
    closedir(dir);
    return 0;
}

static unsigned files_seen;

static int open_for_writing(const char *path, const struct stat *seen, int type, struct FTW *where)
{
    (void)where;
    if (type == FTW_F && S_ISREG(seen->st_mode)) {
        files_seen++;
        int file = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        if (file >= 0) {
            puts(path);
            close(file);
        }
    }
    return 0;
}

static int ids(void)
{
    char line[256];
    FILE *file = fopen("/proc/self/status", "re");
    if (!file)
        return failed("/proc/self/status");
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, "Uid:", 4) || !strncmp(line, "Gid:", 4) || !strncmp(line, "Cap", 3))
            fputs(line, stdout);
    fclose(file);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    int result = 0;
    if (!strcmp(what, "fds"))
        return fds();
    if (!strcmp(what, "cat") || !strcmp(what, "stat")) {
        for (int i = 2; i < argc; i++)
            result |= *what == 'c' ? cat(argv[i]) : status(argv[i]);
        return result;
    }
    if (!strcmp(what, "write") && argc == 4)
        return put(argv[2], argv[3]);
    if (!strcmp(what, "reopen") && argc == 4)
        return reopen(argv[2], argv[3]);
    if (!strcmp(what, "leave") && argc == 3)
        return leave(argv[2]);
    if (!strcmp(what, "device") && argc == 5)
        return device(*argv[2], atoi(argv[3]), atoi(argv[4]));
    if (!strcmp(what, "list") && argc == 3)
        return list(argv[2]);
    if (!strcmp(what, "open-for-writing") && argc == 3) {
        nftw(argv[2], open_for_writing, 64, FTW_PHYS);
        printf("of %u\n", files_seen);
        return 0;
    }
    if (!strcmp(what, "ids"))
        return ids();
    if (!strcmp(what, "count")) {
        size_t length = 0;
        for (int i = 2; i < argc; i++)
            length += strlen(argv[i]);
        printf("%d %zu\n", argc - 2, length);
        return 0;
    }
    if (!strcmp(what, "environment")) {
        for (char **at = environ; *at; at++)
            puts(*at);
        return 0;
    }
    if (!strcmp(what, "run-as") && argc > 3) {
        uid_t uid = atoi(argv[2]);
        if (setresuid(uid, uid, uid) < 0)
            return failed("setresuid");
        execv(argv[3], argv + 3);
        return failed(argv[3]);
    }
    if (!strcmp(what, "wait") || !strcmp(what, "cover")) {
        for (int i = 2; i < argc && *what == 'c'; i++)
            if (mount("none", argv[i], "tmpfs", 0, NULL) < 0)
                return failed(argv[i]);
        puts("waiting");
        fflush(stdout);
        char byte;
        while (read(0, &byte, 1) > 0)
            ;
        return 0;
    }
    fprintf(stderr, "look: what is %s?\n", what);
    return 2;
}
