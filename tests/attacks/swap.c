/*
 *     swap A B [A B]...
 *
 * Exchanges A and B, again and again, until it is killed: who looks at A twice sees two things.
 */

#include <stdio.h>
#include <unistd.h>
#include <sys/syscall.h>

#include "how.h"

int main(int argc, char **argv)
{
    if (argc < 3 || argc % 2 == 0)
        return 2;
    puts("swapping");
    fflush(stdout);
    for (;;)
        for (int i = 1; i < argc; i += 2)
            if (syscall(SYS_renameat2, AT_FDCWD, argv[i], AT_FDCWD, argv[i + 1], RENAME_EXCHANGE) < 0) {
                perror(argv[i]);
                return 1;
            }
}
