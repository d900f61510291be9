/* The header compiles as C17, pedantically, in two orders of inclusion.
 *
 * tests/run: cflags=-std=c17,-pedantic,-Wshadow,-Wstrict-prototypes
 */
#include <ringfence.h>

#include <ringfence.h>

int main(void)
{
    ringfence_kind kind = RINGFENCE_KIND_INVALID_SPEC;
    return kind == 1 && RINGFENCE_REASON_EXITED == 1 && RINGFENCE_LOG_LEVEL_TRACE == 5 ? 0 : 1;
}
