/*
 *     tries HOST_PID PORT NAME KEY
 *
 * What root of a container tries, one thing after the other, each in a process of its own. It prints for each of the rows of
 * core/src/attacks.md a line `ROW OUTCOME`: the name of an errno; `empty` (there is /dev/null, or a directory without anything);
 * `own` (it worked, on something that is the container's); `reached` (it worked, on something of the host's); `killed`.
 *
 * Everything is tried in a form that does the host no harm where it works: files are opened for writing and not written to, times
 * are set to what they are, what is loaded is no program.
 *
 * HOST_PID is a process of the host, PORT one of its TCP ports on 127.0.0.1; NAME is what its abstract socket and its shared
 * memory are called, KEY the number of its System V memory; a key of its keyrings is called NAME too.
 */

#include <arpa/inet.h>
#include <asm/prctl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/kexec.h>
#include <linux/nsfs.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/acct.h>
#include <sys/fanotify.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/quota.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "how.h"

static int host_pid, port, key;
static const char *name;

enum { OWN = 1, REACHED, EMPTY };

/* -1 and errno, or what it means that it worked. */
static int when(long result, int meaning)
{
    return result < 0 ? -1 : meaning;
}

/* Who gets as far as to the look at what was given, which is nothing, could have given something. */
static int could(long result, int refusal)
{
    return result < 0 && errno == refusal ? REACHED : when(result, REACHED);
}

/* The file is the host's own: it is opened, no more. */
static int opened(const char *path, int flags)
{
    struct stat seen;
    int file = open(path, flags | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return -1;
    if (fstat(file, &seen) == 0 && S_ISCHR(seen.st_mode) && seen.st_rdev == makedev(1, 3))
        return EMPTY;
    return REACHED;
}

static int written(const char *path)
{
    return opened(path, O_WRONLY);
}

static int listed(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.')
            return REACHED;
    return EMPTY;
}

static int mount_of(const char *kind, const char *options)
{
    mkdir("/tmp/mounted", 0700);
    return mount("none", "/tmp/mounted", kind, 0, options);
}

static int mount_tmpfs(void) { return when(mount_of("tmpfs", NULL), OWN); }
static int mount_proc(void) { return when(mount_of("proc", NULL), OWN); }
static int mount_sysfs(void) { return when(mount_of("sysfs", NULL), OWN); }
static int mount_disk(void) { return could(mount_of("ext4", NULL), ENOENT); }
static int mount_debugfs(void) { return when(mount_of("debugfs", NULL), REACHED); }
static int mount_tracefs(void) { return when(mount_of("tracefs", NULL), REACHED); }
static int mount_securityfs(void) { return when(mount_of("securityfs", NULL), REACHED); }
static int mount_devtmpfs(void) { return when(mount_of("devtmpfs", NULL), REACHED); }
static int mount_efivarfs(void) { return when(mount_of("efivarfs", NULL), REACHED); }

/* A mount in the first namespace of control groups sets the options of all there are: with others than the host's own, whoever
   succeeds would take the borders of the namespaces away from everybody on the machine. */
static const char *options_of_groups(char *line, size_t size)
{
    FILE *file = fopen("/proc/self/mountinfo", "r");
    char *options = NULL;
    while (file && !options && fgets(line, (int)size, file)) {
        char *kind = strstr(line, " - cgroup2 ");
        char *shown = kind ? strrchr(kind, ' ') + 1 : NULL;
        if (shown && strncmp(shown, "rw,", 3) == 0)
            options = shown + 3;
    }
    if (file)
        fclose(file);
    if (options)
        options[strcspn(options, "\n")] = 0;
    return options;
}

/* A hierarchy may be mounted, and shows its own groups: none of their files may be written. */
static int mount_cgroup(void)
{
    char line[4096];
    if (mount_of("cgroup2", options_of_groups(line, sizeof line)) < 0)
        return -1;
    struct stat seen;
    return stat("/tmp/mounted/cgroup.procs", &seen) == 0 && access("/tmp/mounted/cgroup.procs", W_OK) == 0 ? REACHED : OWN;
}

/* CVE-2022-0492: a hierarchy, whose root has a program that the kernel runs. */
static int release_agent(void)
{
    if (mount_of("cgroup", "none,name=ringfence-attack") < 0 && mount_of("cgroup", "memory") < 0)
        return -1;
    return written("/tmp/mounted/release_agent");
}

static int remount_root(void)
{
    return when(mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL), OWN);
}

static int core_pattern(void) { return written("/proc/sys/kernel/core_pattern"); }

static int core_pattern_after_remount(void)
{
    if (mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL) < 0)
        return -1;
    return core_pattern();
}

static int unmask(void)
{
    if (umount2("/proc/interrupts", MNT_DETACH) < 0)
        return -1;
    return OWN;
}

static int pivot(void)
{
    if (mount("/tmp", "/tmp", NULL, MS_BIND, NULL) < 0)
        return -1;
    return when(syscall(SYS_pivot_root, "/tmp", "/tmp"), OWN);
}

/* The classic way out of a chroot: a working directory above the root. */
static int chroot_out(void)
{
    struct stat before, after;
    mkdir("/tmp/jail", 0700);
    if (stat("/", &before) < 0 || chdir("/") < 0 || chroot("/tmp/jail") < 0)
        return -1;
    for (int i = 0; i < 64; i++)
        if (chdir("..") < 0)
            return -1;
    if (chroot(".") < 0 || stat("/", &after) < 0)
        return -1;
    return before.st_dev == after.st_dev && before.st_ino == after.st_ino ? OWN : REACHED;
}

static int clone_tree(void) { return when(syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE), OWN); }

static int open_file_system(void)
{
    int context = syscall(SYS_fsopen, "ext4", 0);
    return context < 0 ? -1 : could(syscall(SYS_fsconfig, context, 6, NULL, NULL, 0), EINVAL);
}

static int device(mode_t kind, unsigned numbers[2])
{
    unlink("/tmp/node");
    if (mknod("/tmp/node", kind | 0600, makedev(numbers[0], numbers[1])) < 0)
        return -1;
    int result = opened("/tmp/node", O_RDONLY);
    /* Of a device that is not there nothing is reached, but it was tried. */
    return result < 0 && (errno == ENXIO || errno == ENODEV || errno == ENOMEDIUM) ? REACHED : result;
}

static int make_disk(void)
{
    struct stat root;
    if (stat("/", &root) < 0)
        return -1;
    return device(S_IFBLK, (unsigned[]){major(root.st_dev), minor(root.st_dev)});
}

static int make_memory(void) { return device(S_IFCHR, (unsigned[]){1, 1}); }
static int make_kmsg(void) { return device(S_IFCHR, (unsigned[]){1, 11}); }

struct handle {
    struct file_handle head;
    unsigned char bytes[64];
};

/* "Shocker": the root directory of the file system that the container's root is part of is inode 2. */
static int handle_of_root(void)
{
    struct handle handle = {.head = {.handle_bytes = 8, .handle_type = 1}};
    memcpy(handle.bytes, (uint32_t[]){2, 0}, 8);
    int at = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return when(syscall(SYS_open_by_handle_at, at, &handle, O_RDONLY), REACHED);
}

/* The first mount namespace by its number, which is the same on every machine (Linux 6.18). */
static int handle_of_namespace(void)
{
    struct handle handle = {.head = {.handle_bytes = 16, .handle_type = 0xf1}};
    memcpy(handle.bytes, (uint64_t[]){8, 0}, 16);
    return when(syscall(SYS_open_by_handle_at, -10003, &handle, O_RDONLY), REACHED);
}

static int parent_of(const char *kind)
{
    int mine = open(kind, O_RDONLY | O_CLOEXEC);
    return mine < 0 ? -1 : when(ioctl(mine, NS_GET_PARENT), REACHED);
}

static int parent_pid_namespace(void) { return parent_of("/proc/self/ns/pid"); }
static int parent_user_namespace(void) { return parent_of("/proc/self/ns/user"); }

static int host_namespace(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", host_pid);
    int other = open(path, O_RDONLY | O_CLOEXEC);
    return other < 0 ? -1 : when(setns(other, 0), REACHED);
}

static int init_root(void) { return opened("/proc/1/root/bin", O_RDONLY); }
static int init_memory(void) { return opened("/proc/1/mem", O_RDWR); }
static int init_environment(void) { return opened("/proc/1/environ", O_RDONLY); }
static int init_trace(void) { return when(ptrace(PTRACE_SEIZE, 1, NULL, NULL), REACHED); }

static int init_read(void)
{
    char data[8];
    struct iovec here = {data, 8}, there = {(void *)0x10000, 8};
    return could(process_vm_readv(1, &here, 1, &there, 1, 0), EFAULT);
}

static int init_descriptor(void)
{
    int init = syscall(SYS_pidfd_open, 1, 0);
    return init < 0 ? -1 : could(syscall(SYS_pidfd_getfd, init, 250, 0), EBADF);
}

static int init_compare(void) { return when(syscall(SYS_kcmp, 1, getpid(), 2, 0, 0), REACHED); }
static int init_pages(void) { return when(syscall(SYS_migrate_pages, 1, 64, &(long){1}, &(long){1}), REACHED); }
static int host_process(void) { return when(kill(host_pid, 0), REACHED); }
static int host_limits(void) { return when(prlimit(host_pid, RLIMIT_NOFILE, NULL, &(struct rlimit){0}), REACHED); }
static int host_priority(void) { return could(sched_setaffinity(host_pid, 128, &(cpu_set_t){0}), EINVAL); }

static int host_abstract_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s", name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -1 : when(connect(fd, (void *)&address, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)), REACHED);
}

static int host_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -1 : when(connect(fd, (void *)&address, sizeof address), REACHED);
}

static int host_shared_memory(void) { return when(shmget(key, 0, 0), REACHED); }

static int host_posix_memory(void)
{
    char path[128];
    snprintf(path, sizeof path, "/dev/shm/%s", name);
    return opened(path, O_RDONLY);
}

static int host_message_queue(void)
{
    char path[128];
    snprintf(path, sizeof path, "/%s", name);
    return when(mq_open(path, O_RDONLY), REACHED);
}

static long keyctl(int operation, long a, long b, long c, long d) { return syscall(SYS_keyctl, operation, a, b, c, d); }

static int keyring(long which) { return when(keyctl(KEYCTL_SEARCH, which, (long)"user", (long)name, 0), REACHED); }

static int session_keyring(void) { return keyring(KEY_SPEC_SESSION_KEYRING); }
static int user_keyring(void) { return keyring(KEY_SPEC_USER_KEYRING); }

static int own_key(void)
{
    return when(syscall(SYS_add_key, "user", "ringfence-own", "x", 1, KEY_SPEC_PROCESS_KEYRING), OWN);
}

static int kexec(void) { return when(syscall(SYS_kexec_load, 0, 0, NULL, KEXEC_ARCH_DEFAULT), REACHED); }
static int kexec_file(void) { return could(syscall(SYS_kexec_file_load, -1, -1, 0, "", 0), EBADF); }

static int module(void) { return could(syscall(SYS_init_module, "no module", 9, ""), ENOEXEC); }
static int module_file(void) { return could(syscall(SYS_finit_module, -1, "", 0), EBADF); }
static int module_removed(void) { return could(syscall(SYS_delete_module, "ringfence-no-module", O_NONBLOCK), ENOENT); }

static int bpf_map(void)
{
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    return when(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr), REACHED);
}

static int bpf_program(void)
{
    struct bpf_insn code[] = {{.code = 0xb7}, {.code = 0x95}};
    union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insns = (long)code, .insn_cnt = 2, .license = (long)"GPL"};
    return when(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr), REACHED);
}

static int perf(int pid, int cpu, int user_only)
{
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_CPU_CLOCK};
    attr.exclude_kernel = attr.exclude_hv = user_only;
    return syscall(SYS_perf_event_open, &attr, pid, cpu, -1, 0);
}

static int perf_machine(void) { return when(perf(-1, 0, 0), REACHED); }
static int perf_own(void) { return when(perf(0, -1, 1), OWN); }
static int user_faults(void) { return when(syscall(SYS_userfaultfd, O_CLOEXEC), REACHED); }
static int io_uring(void) { return when(syscall(SYS_io_uring_setup, 1, &(struct io_uring_params){0}), OWN); }

static int clock_set(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return when(clock_settime(CLOCK_REALTIME, &now), REACHED);
}

static int time_of_day(void)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    return when(settimeofday(&now, NULL), REACHED);
}

static int clock_adjusted(void)
{
    struct timex now = {0};
    if (adjtimex(&now) < 0)
        return -1;
    now.modes = ADJ_FREQUENCY;
    return when(adjtimex(&now), REACHED);
}

/* In a pid namespace of its own this is an unknown command. */
static int restart(void) { return when(reboot(RB_ENABLE_CAD), REACHED); }
static int swap_on(void) { return could(swapon("/nowhere", 0), ENOENT); }
static int swap_off(void) { return could(swapoff("/nowhere"), ENOENT); }

static int quota(void)
{
    int at = open("/", O_RDONLY | O_CLOEXEC);
    return could(syscall(SYS_quotactl_fd, at, QCMD(Q_SETQUOTA, USRQUOTA), 0, &(struct dqblk){0}), ESRCH);
}

static int accounting(void) { return could(acct("/nowhere/file"), ENOENT); }
static int kernel_log(void) { return when(klogctl(3, (char[64]){0}, 64), REACHED); }
static int kernel_log_file(void) { return opened("/proc/kmsg", O_RDONLY); }
static int console_level(void) { return when(klogctl(7, NULL, 0), REACHED); }
static int io_ports(void) { return when(iopl(3), REACHED); }
static int io_port(void) { return when(ioperm(0x80, 1, 1), REACHED); }
static int hang_up(void) { return when(vhangup(), REACHED); }
static int host_name(void) { return when(sethostname("attack", 6), OWN); }
static int sysrq(void) { return written("/proc/sysrq-trigger"); }
static int kcore(void) { return opened("/proc/kcore", O_RDONLY); }
static int keys(void) { return opened("/proc/keys", O_RDONLY); }
static int timers(void) { return opened("/proc/timer_list", O_RDONLY); }
static int firmware(void) { return listed("/sys/firmware"); }
static int debug_files(void) { return listed("/sys/kernel/debug"); }
static int bpf_files(void) { return listed("/sys/fs/bpf"); }
static int uevent_helper(void) { return written("/sys/kernel/uevent_helper"); }
static int power(void) { return written("/sys/power/state"); }
static int modprobe(void) { return written("/proc/sys/kernel/modprobe"); }
static int binary_formats(void) { return when(mount_of("binfmt_misc", NULL), OWN); }

static int io_scheduler(void)
{
    char path[300];
    DIR *dir = opendir("/sys/block");
    int result = EMPTY;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        snprintf(path, sizeof path, "/sys/block/%s/queue/scheduler", entry->d_name);
        if (entry->d_name[0] != '.' && (result = written(path)) == REACHED)
            break;
    }
    return dir ? result : -1;
}

/* A program that is set-user-id root, in memory: whoever runs it has no more than root of the container. */
static int set_user_id(void)
{
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to = memfd_create("attack", MFD_CLOEXEC);
    static char data[1 << 16];
    for (ssize_t n; (n = read(from, data, sizeof data)) > 0;)
        if (write(to, data, n) != n)
            return -1;
    if (to < 0 || fchmod(to, 04755) < 0 || setresuid(1000, 1000, 1000) < 0)
        return -1;
    int ends[2];
    if (pipe(ends) < 0)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        fexecve(to, (char *[]){"tries", "--euid", NULL}, (char *[]){NULL});
        _exit(1);
    }
    close(ends[1]);
    char euid = 0;
    ssize_t n = read(ends[0], &euid, 1);
    waitpid(child, NULL, 0);
    if (n != 1) {
        errno = EACCES;
        return -1;
    }
    return euid == '0' ? REACHED : EMPTY;
}

static int user_namespace(void) { return when(unshare(CLONE_NEWUSER), OWN); }
static int mount_namespace(void) { return when(unshare(CLONE_NEWNS), OWN); }
static int net_namespace(void) { return when(unshare(CLONE_NEWNET), OWN); }

static int clone3_user_namespace(void)
{
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long child = syscall(SYS_clone3, &args, sizeof args);
    if (child == 0)
        _exit(0);
    if (child > 0)
        waitpid(child, NULL, 0);
    return when(child, OWN);
}

static int no_randomization(void) { return when(personality(ADDR_NO_RANDOMIZE), OWN); }
static int virtual_socket(void) { return when(socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0), REACHED); }
static int crypto_socket(void) { return when(socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), REACHED); }

/* The calls of 32-bit programs are there for others too, and one of them has its arguments in memory. */
static int multiplexed_socket(void)
{
#ifdef __x86_64__
    const long socketcall = 102, of_socket = 1;
    uint32_t *args = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (args == MAP_FAILED)
        return -1;
    args[0] = AF_VSOCK;
    args[1] = SOCK_STREAM | SOCK_CLOEXEC;
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(socketcall), "b"(of_socket), "c"(args)
                     : "memory", "r8", "r9", "r10", "r11");
    if ((int)result < 0)
        errno = -(int)result;
    return when((int)result, REACHED);
#else
    errno = ENOSYS;
    return -1;
#endif
}

/* Drivers in the kernel for a terminal of one's own; this one is the one that it has. */
static int line_discipline(void)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    return terminal < 0 ? -1 : when(ioctl(terminal, TIOCSETD, &(int){0}), OWN);
}

/* CVE-2025-38236 */
static int urgent_data(void)
{
    int ends[2];
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0 ? -1 : when(send(ends[0], "x", 1, MSG_OOB), OWN);
}

/* Nodes that are the host's, as what is masked by one: their mode is set to what it is. */
static int device_node(void)
{
    static const char *const paths[] = {"/dev/null", "/dev/full", "/proc/keys", "/proc/timer_list"};
    int result = -1;
    for (unsigned i = 0; i < sizeof paths / sizeof *paths && result < 0; i++) {
        struct stat seen;
        if (stat(paths[i], &seen) == 0 && S_ISCHR(seen.st_mode))
            result = when(chmod(paths[i], seen.st_mode & 07777), REACHED);
    }
    return result;
}

static int packet_socket(void) { return when(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(3)), OWN); }

/* CVE-2016-3135 and its kin: the old interface of iptables, in a network of its own. */
static int packet_filter(void)
{
    static char table[4096];
    int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    memset(table, 0xff, sizeof table);
    return fd < 0 ? -1 : when(setsockopt(fd, IPPROTO_IP, 64, table, sizeof table), REACHED);
}

static int oom_score(void)
{
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    return file < 0 ? -1 : when(write(file, "-1000", 5), REACHED);
}

static int nice_value(void) { return when(setpriority(PRIO_PROCESS, 0, -20), REACHED); }
static int real_time(void) { return when(sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){1}), REACHED); }
static int io_real_time(void) { return when(syscall(SYS_ioprio_set, 1, 0, 1 << 13), REACHED); }

static int hard_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NICE, &limit);
    limit.rlim_max = limit.rlim_max == RLIM_INFINITY ? limit.rlim_max : limit.rlim_max + 20;
    return when(setrlimit(RLIMIT_NICE, &limit), REACHED);
}

static int all_files(void)
{
    int group = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY);
    return group < 0 ? -1 : when(fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN, AT_FDCWD, "/"), REACHED);
}

static int immutable(void)
{
    int file = open("/tmp/immutable", O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ioctl(file, FS_IOC_SETFLAGS, &(int){FS_IMMUTABLE_FL}) < 0)
        return -1;
    return when(ioctl(file, FS_IOC_SETFLAGS, &(int){0}), OWN);
}

static const struct {
    const char *name;
    int (*run)(void);
} tries[] = {
#define TRY(function) {#function, function}
    TRY(chroot_out), TRY(make_disk), TRY(make_memory), TRY(make_kmsg), TRY(handle_of_root), TRY(handle_of_namespace),
    TRY(parent_pid_namespace), TRY(parent_user_namespace), TRY(host_namespace), TRY(user_namespace),
    TRY(clone3_user_namespace), TRY(mount_namespace), TRY(net_namespace), TRY(init_root), TRY(init_memory),
    TRY(init_environment), TRY(init_trace), TRY(init_read), TRY(init_descriptor), TRY(init_compare), TRY(init_pages),
    TRY(host_process), TRY(host_limits), TRY(host_priority), TRY(host_abstract_socket), TRY(host_port),
    TRY(host_shared_memory), TRY(host_posix_memory), TRY(host_message_queue), TRY(session_keyring), TRY(user_keyring),
    TRY(own_key), TRY(kexec), TRY(kexec_file), TRY(module), TRY(module_file), TRY(module_removed), TRY(bpf_map),
    TRY(bpf_program), TRY(perf_machine), TRY(perf_own), TRY(user_faults), TRY(io_uring), TRY(clock_set),
    TRY(time_of_day), TRY(clock_adjusted), TRY(restart), TRY(swap_on), TRY(swap_off), TRY(quota), TRY(accounting),
    TRY(kernel_log), TRY(kernel_log_file), TRY(console_level), TRY(io_ports), TRY(io_port), TRY(hang_up),
    TRY(host_name), TRY(core_pattern), TRY(modprobe), TRY(sysrq), TRY(kcore), TRY(keys), TRY(timers), TRY(firmware),
    TRY(debug_files), TRY(bpf_files), TRY(uevent_helper), TRY(power), TRY(io_scheduler), TRY(set_user_id),
    TRY(no_randomization), TRY(virtual_socket), TRY(crypto_socket), TRY(multiplexed_socket), TRY(line_discipline),
    TRY(urgent_data), TRY(device_node), TRY(packet_socket), TRY(packet_filter), TRY(oom_score),
    TRY(nice_value), TRY(real_time), TRY(io_real_time), TRY(hard_limit), TRY(all_files), TRY(immutable),
    /* These change what the later ones see. */
    TRY(mount_tmpfs), TRY(mount_proc), TRY(mount_sysfs), TRY(mount_disk), TRY(mount_debugfs), TRY(mount_tracefs),
    TRY(mount_securityfs), TRY(mount_devtmpfs), TRY(mount_efivarfs), TRY(mount_cgroup), TRY(release_agent),
    TRY(binary_formats), TRY(clone_tree), TRY(open_file_system), TRY(remount_root), TRY(unmask),
    TRY(core_pattern_after_remount), TRY(pivot),
};

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--euid") == 0) {
        putchar(geteuid() == 0 ? '0' : '1');
        return 0;
    }
    if (argc < 5)
        return 2;
    host_pid = atoi(argv[1]);
    port = atoi(argv[2]);
    name = argv[3];
    key = strtol(argv[4], NULL, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (unsigned i = 0; i < sizeof tries / sizeof *tries; i++) {
        if (argc > 5 && strcmp(argv[5], tries[i].name) != 0)
            continue;
        pid_t child = fork();
        if (child < 0)
            return 3;
        if (child == 0) {
            static const char *const words[] = {NULL, "own", "reached", "empty"};
            alarm(20);
            errno = 0;
            int result = tries[i].run();
            const char *said = result < 0 ? strerrorname_np(errno) : words[result];
            printf("%s %s\n", tries[i].name, said ? said : "unknown");
            fflush(stdout);
            _exit(0);
        }
        int status;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        if (WIFSIGNALED(status))
            printf("%s killed\n", tries[i].name);
    }
    return 0;
}
