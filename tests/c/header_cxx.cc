/* The header compiles as C++17, pedantically.
 *
 * tests/run: cflags=-pedantic
 */
#include <ringfence.h>

#include <memory>
#include <string>

struct free_spec {
    void operator()(ringfence_spec *spec) const { ringfence_spec_free(spec); }
};

int main()
{
    std::unique_ptr<ringfence_spec, free_spec> spec(ringfence_spec_new());
    ringfence_kind kind = RINGFENCE_KIND_NOT_FOUND;
    return spec && ringfence_spec_set(spec.get(), "hostname", "db", nullptr) == 0 && kind == 3 ? 0 : 1;
}
