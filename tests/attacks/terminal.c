/*
 *     terminal push TEXT       CVE-2017-5226: types TEXT into the terminal that is its standard input
 *     terminal group SIGNAL    sends it to its process group, which is its caller's where there is no session of its own
 *     terminal front           makes itself the terminal's foreground process group
 *     terminal take            makes it the terminal of a session of its own, from whoever has it
 *     terminal discipline      gives it a line discipline that loses what is typed
 *     terminal console         has what the kernel and others print on the console printed on it
 *     terminal paste           CVE-2023-28100: has a virtual console (TIOCLINUX) take a selection for typed
 *     terminal settings        the echo off, another size
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
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
    if (argc == 2 && strcmp(argv[1], "take") == 0) {
        setsid();
        return said("take", ioctl(0, TIOCSCTTY, 1));
    }
    if (argc == 2 && strcmp(argv[1], "discipline") == 0)
        return said("discipline", ioctl(0, TIOCSETD, &(int){27 /* N_NULL */}));
    if (argc == 2 && strcmp(argv[1], "console") == 0)
        return said("console", ioctl(0, TIOCCONS));
    if (argc == 2 && strcmp(argv[1], "paste") == 0)
        return said("paste", ioctl(0, TIOCLINUX, &(char){3 /* TIOCL_PASTESEL */}));
    if (argc == 2 && strcmp(argv[1], "settings") == 0) {
        struct termios settings;
        /* Whoever is in the background and has it as controlling terminal would be stopped. */
        signal(SIGTTOU, SIG_IGN);
        int result = tcgetattr(0, &settings);
        settings.c_lflag ^= ECHO;
        if (result == 0)
            result = tcsetattr(0, TCSANOW, &settings);
        return said("settings", result < 0 ? result : ioctl(0, TIOCSWINSZ, &(struct winsize){.ws_row = 7, .ws_col = 7}));
    }
    return 2;
}
