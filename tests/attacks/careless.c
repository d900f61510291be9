/*
 * A container launcher with the flaws of others, each behind a switch, so that every attack of this directory is seen to
 * succeed where nothing stands in its way. Without switches it does what a launcher does, and none of the attacks works.
 *
 *     careless [SWITCH...] --root DIR -- PROGRAM [ARGUMENT...]       start, wait, same exit status
 *     careless [SWITCH...] --join PID -- PROGRAM [ARGUMENT...]       the same in a running one
 *
 * Steps are done in the order of the switches. All paths but DIR are inside; "by path" means: DIR and the path, one string.
 *
 *     --mkdir PATH            mkdir -p by path                                            CVE-2024-45310
 *     --mount SOURCE:PATH     looks that PATH is no symlink, then mounts by path          CVE-2021-30465
 *     --follow SOURCE:PATH    mounts by path, whatever PATH is                            CVE-2019-18837
 *     --copy-out PATH         looks that the directory of PATH is no symlink, then prints the file, by path   CVE-2018-15664
 *     --copy-in PATH=TEXT     the same, and writes it                                     CVE-2018-15664
 *     --careful SOURCE:PATH   the same by descriptors, as it should be done
 *     --proc, --sys           mounts them by path                                         CVE-2023-27561, CVE-2019-19921
 *     --dev                   makes nodes and links of /dev by path, chmods the console   CVE-2026-41579, CVE-2026-47766
 *     --mask PATH             binds the image's own /dev/null over it                     CVE-2025-31133
 *     --console               binds a pty, found by its name, over /dev/console           CVE-2025-52565
 *     --write PATH=TEXT       writes to a file of /proc or of the image by path           CVE-2019-16884, CVE-2025-24965
 *     --null                  standard input is the image's own /dev/null
 *     --leak                  the host's / stays open in the program                      CVE-2024-21626
 *     --cwd PATH              changes there without a look at where that is               CVE-2024-21626
 *     --slow MICROSECONDS     dawdles before the exec, dumpable and with the host's / open    CVE-2016-9962, CVE-2019-5736
 *     --group DIR:NAME        makes the group NAME below DIR, which is the host's, and moves there
 *     --user TEXT             atoi(3)                                                     CVE-2026-30892
 *     --maps FILE             sends maps and ids to the child, with lengths of 16 bits    CVE-2021-43784
 *     --inheritable           all capabilities are inheritable                            CVE-2022-29162
 *     --same-session          no setsid(2)                                                CVE-2017-5226
 *     --same-environment      the caller's own environment
 *     --host-processes        no pid namespace
 *     --shared                mounts stay in the peer groups of the host's
 *     --tell-mounts           prints what is mounted before the root is changed
 *     --pid-file FILE         where the host finds the pid of the container's first process
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "how.h"

extern char **environ;

static const char *root = "/", *cwd = "/", *pid_file, *user;
static int maps = -1, slow, leak, inheritable, same_session, same_environment, host_processes, shared;
static pid_t join;

static void die(const char *what)
{
    fprintf(stderr, "careless: %s: %s\n", what, strerror(errno));
    exit(125);
}

/* Never empty: a careless launcher that fails would prove nothing. */
static const char *below(const char *path)
{
    static char full[2][4096];
    static int turn;
    turn = !turn;
    if (snprintf(full[turn], sizeof full[turn], "%s/%s", root, path + (*path == '/')) >= (int)sizeof full[turn])
        die("path");
    return full[turn];
}

static void make_directories(const char *path)
{
    char full[4096];
    snprintf(full, sizeof full, "%s", below(path));
    for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')); *at++ = '/') {
        *at = 0;
        mkdir(full, 0755);
    }
    mkdir(full, 0755);
}

static void put(const char *path, const char *text, int flags)
{
    int file = open(path, flags | O_CLOEXEC, 0644);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        die(path);
    close(file);
}

static void mount_by_path(char *pair, int look)
{
    char *path = strchr(pair, ':');
    *path++ = 0;
    struct stat seen;
    make_directories(path);
    /* The look and the mount are two walks of the same path. */
    if (look && (lstat(below(path), &seen) < 0 || S_ISLNK(seen.st_mode))) {
        errno = ELOOP;
        die("a symlink");
    }
    usleep(slow);
    if (mount(pair, below(path), NULL, MS_BIND, NULL) < 0)
        die(path);
}

static void move_to_group(char *pair)
{
    char *name = strchr(pair, ':'), group[4096], procs[4096 + 16];
    *name++ = 0;
    snprintf(group, sizeof group, "%s/%s", pair, name);
    if (mkdir(group, 0755) < 0 && errno != EEXIST)
        die(group);
    snprintf(procs, sizeof procs, "%s/cgroup.procs", group);
    put(procs, "0", O_WRONLY | O_CREAT);
}

/* The look and the copy are two walks of the same path. */
static void copy(const char *path, const char *text)
{
    char directory[4096], data[4096];
    struct stat seen;
    snprintf(directory, sizeof directory, "%s", below(path));
    *strrchr(directory, '/') = 0;
    if (lstat(directory, &seen) < 0 || S_ISLNK(seen.st_mode)) {
        errno = ELOOP;
        die("a symlink");
    }
    usleep(slow);
    int file = open(below(path), (text ? O_WRONLY | O_CREAT : O_RDONLY) | O_CLOEXEC, 0644);
    ssize_t n = file < 0 ? -1 : text ? write(file, text, strlen(text)) : read(file, data, sizeof data);
    if (n < 0)
        die(path);
    if (!text)
        fwrite(data, 1, n, stdout);
    fflush(stdout);
    close(file);
}

static void mount_by_descriptor(char *pair)
{
    char *path = strchr(pair, ':');
    *path++ = 0;
    int top = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS};
    int target = syscall(SYS_openat2, top, path, &how, sizeof how);
    int tree = syscall(SYS_open_tree, AT_FDCWD, pair, OPEN_TREE_CLONE | O_CLOEXEC);
    if (target < 0 || tree < 0 || syscall(SYS_move_mount, tree, "", target, "", 0x44) < 0)
        die(path);
}

static void populate_dev(void)
{
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"}, {"pts/ptmx", "/dev/ptmx"}};
    make_directories("/dev");
    for (unsigned i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], below(links[i][1])) < 0 && errno != EEXIST)
            die(links[i][1]);
    close(open(below("/dev/null"), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    if (mount("/dev/null", below("/dev/null"), NULL, MS_BIND, NULL) < 0)
        die("/dev/null");
    close(open(below("/dev/console"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (chmod(below("/dev/console"), 0620) < 0)
        die("/dev/console");
}

static void console(void)
{
    char name[64];
    unsigned unlock = 0, number;
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || ioctl(master, 0x40045431 /* TIOCSPTLCK */, &unlock) < 0 ||
        ioctl(master, 0x80045430 /* TIOCGPTN */, &number) < 0)
        die("/dev/ptmx");
    snprintf(name, sizeof name, "/dev/pts/%u", number);
    usleep(slow);
    /* As chmod and chown of the slave by its name in the container. */
    if (chmod(below(name), 0620) < 0 && errno != ENOENT)
        die(name);
}

/* Attributes with a length of 16 bits, as netlink has them: id maps that are longer push what follows out of its place. */
struct attribute {
    uint16_t length, type;
};
enum { MAPS = 1, UID = 2 };

static uid_t by_message(void)
{
    static char message[1 << 18];
    struct attribute *a = (void *)message;
    ssize_t length = read(maps, a + 1, sizeof message - 64);
    if (length < 0)
        die("maps");
    a->type = MAPS;
    a->length = sizeof *a + length;
    size_t end = sizeof *a + length;
    a = (void *)(message + end);
    *a = (struct attribute){sizeof *a + 4, UID};
    memcpy(a + 1, &(uint32_t){65534}, 4);
    end += a->length;
    uint32_t uid = 65534;
    for (size_t at = 0; at + sizeof *a <= end;) {
        struct attribute next;
        memcpy(&next, message + at, sizeof next);
        if (next.type == UID && next.length == sizeof next + 4) {
            memcpy(&uid, message + at + sizeof next, 4);
            break;
        }
        if (next.length < sizeof next)
            break;
        at += next.length;
    }
    return uid;
}

static void new_user_namespace(void)
{
    char map[64];
    unsigned uid = geteuid(), gid = getegid();
    if (unshare(CLONE_NEWUSER) < 0)
        die("unshare");
    put("/proc/self/setgroups", "deny", O_WRONLY);
    snprintf(map, sizeof map, "0 %u 1", uid);
    put("/proc/self/uid_map", map, O_WRONLY);
    snprintf(map, sizeof map, "0 %u 1", gid);
    put("/proc/self/gid_map", map, O_WRONLY);
}

static void change_root(void)
{
    int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (old < 0 || chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || fchdir(old) < 0 ||
        umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        die("pivot_root");
}

static void tell_mounts(void)
{
    char line[4096];
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    while (mounts && fgets(line, sizeof line, mounts))
        fputs(line, stdout);
    fflush(stdout);
}

static void finish(char **argv)
{
    if (slow && join)
        usleep(slow);
    if (chdir(cwd) < 0)
        die(cwd);
    uid_t uid = maps >= 0 ? by_message() : user ? (uid_t)atoi(user) : 0;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (inheritable && (syscall(SYS_capget, &header, data) < 0 ||
                        (data[0].inheritable = data[0].permitted, data[1].inheritable = data[1].permitted,
                         syscall(SYS_capset, &header, data) < 0)))
        die("capset");
    if (uid && setresuid(uid, uid, uid) < 0)
        die("setresuid");
    if (!same_session)
        setsid();
    static char *clean[] = {"PATH=/bin:/usr/bin", NULL};
    execve(argv[0], argv, same_environment ? environ : clean);
    die(argv[0]);
}

static int status_of(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int joined(char **argv)
{
    static const char *const kinds[] = {"user", "mnt", "pid"};
    int namespaces[3];
    char path[64];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "/proc/%d/ns/%s", join, kinds[i]);
        namespaces[i] = open(path, O_RDONLY | O_CLOEXEC);
    }
    for (int i = geteuid() == 0; i < 3; i++)
        if (setns(namespaces[i], 0) < 0)
            die(kinds[i]);
    pid_t child = fork();
    if (child == 0)
        finish(argv);
    return status_of(child);
}

int main(int argc, char **argv)
{
    char **steps = calloc(argc + 1, sizeof *steps);
    int count = 0, at = 1;
    for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
        const char *name = argv[at];
        static const struct {
            const char *name;
            int *set;
        } plain[] = {{"--leak", &leak},
                     {"--inheritable", &inheritable},
                     {"--same-session", &same_session},
                     {"--same-environment", &same_environment},
                     {"--host-processes", &host_processes},
                     {"--shared", &shared}};
        int known = 0;
        for (unsigned i = 0; i < sizeof plain / sizeof *plain; i++)
            if (strcmp(name, plain[i].name) == 0)
                known = *plain[i].set = 1;
        if (known)
            continue;
        if (strcmp(name, "--root") == 0)
            root = argv[++at];
        else if (strcmp(name, "--join") == 0)
            join = atoi(argv[++at]);
        else if (strcmp(name, "--cwd") == 0)
            cwd = argv[++at];
        else if (strcmp(name, "--slow") == 0)
            slow = atoi(argv[++at]);
        else if (strcmp(name, "--user") == 0)
            user = argv[++at];
        else if (strcmp(name, "--maps") == 0)
            maps = open(argv[++at], O_RDONLY | O_CLOEXEC);
        else if (strcmp(name, "--pid-file") == 0)
            pid_file = argv[++at];
        else
            steps[count++] = argv[at];
    }
    if (at + 1 >= argc) {
        fputs("careless: no program\n", stderr);
        return 125;
    }
    argv += at + 1;
    if (leak || (join && slow)) {
        /* Where a process seldom has one, and no attack has to guess much. */
        int host = open("/", O_RDONLY | O_DIRECTORY);
        dup2(host, 7);
    }
    if (join)
        return joined(argv);
    if (geteuid() != 0)
        new_user_namespace();
    if (unshare(CLONE_NEWNS | CLONE_NEWUTS | (host_processes ? 0 : CLONE_NEWPID)) < 0)
        die("unshare");
    /* Before the child's pivot_root(2), which changes this process's root too. */
    int told = pid_file ? open(pid_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    if (pid_file && told < 0)
        die(pid_file);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Of mounts that systemd has made shared, the copies of unshare(2) are peers; for pivot_root(2) it is enough that / is none. */
        if (mount(NULL, "/", NULL, (shared ? 0 : MS_REC) | MS_PRIVATE, NULL) < 0)
            die("private");
        if (mount(root, root, NULL, MS_BIND | MS_REC, NULL) < 0 || mount(NULL, root, NULL, MS_PRIVATE, NULL) < 0)
            die(root);
        for (int i = 0; i < count; i++) {
            const char *step = steps[i] + 2;
            if (strcmp(step, "proc") == 0) {
                make_directories("/proc");
                if (mount("proc", below("/proc"), "proc", 0, NULL) < 0)
                    die("proc");
            } else if (strcmp(step, "sys") == 0) {
                make_directories("/sys");
                if (mount("/sys", below("/sys"), NULL, MS_BIND | MS_REC, NULL) < 0)
                    die("sys");
            } else if (strcmp(step, "dev") == 0) {
                populate_dev();
            } else if (strcmp(step, "console") == 0) {
                console();
            } else if (strcmp(step, "tell-mounts") == 0) {
                tell_mounts();
            } else if (strcmp(step, "null") == 0) {
                int null = open(below("/dev/null"), O_RDWR);
                if (null < 0)
                    die("/dev/null");
                dup2(null, 0);
            } else if (strcmp(step, "mkdir") == 0) {
                make_directories(steps[++i]);
            } else if (strcmp(step, "mount") == 0) {
                mount_by_path(steps[++i], 1);
            } else if (strcmp(step, "follow") == 0) {
                mount_by_path(steps[++i], 0);
            } else if (strcmp(step, "group") == 0) {
                move_to_group(steps[++i]);
            } else if (strcmp(step, "careful") == 0) {
                mount_by_descriptor(steps[++i]);
            } else if (strcmp(step, "copy-out") == 0) {
                copy(steps[++i], NULL);
            } else if (strcmp(step, "copy-in") == 0) {
                char *text = strchr(steps[++i], '=');
                *text++ = 0;
                copy(steps[i], text);
            } else if (strcmp(step, "mask") == 0) {
                const char *null = below("/dev/null");
                if (mount(null, below(steps[++i]), NULL, MS_BIND, NULL) < 0)
                    die(steps[i]);
            } else if (strcmp(step, "write") == 0) {
                char *text = strchr(steps[++i], '=');
                *text++ = 0;
                put(below(steps[i]), text, O_WRONLY | O_CREAT);
            } else {
                errno = EINVAL;
                die(steps[i]);
            }
        }
        change_root();
        finish(argv);
    }
    if (told >= 0)
        dprintf(told, "%d", child);
    return status_of(child);
}
