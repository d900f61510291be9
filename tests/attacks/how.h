/* What some versions of the C library do not declare. */
#ifndef HOW_H
#define HOW_H

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

#endif
