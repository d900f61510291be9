/* The header compiles as C99, pedantically, and the basic calls can be linked.
 *
 * tests/run: cflags=-std=c99,-pedantic,-Wshadow,-Wstrict-prototypes
 */
#include <ringfence.h>
#include <string.h>

int main(void)
{
    return strcmp(ringfence_version(), "") && ringfence_version_number() == RINGFENCE_VERSION_NUMBER ? 0 : 1;
}
