"""Writes rtcore/csrc/rtcore_scalar.c: integer square root, reciprocal, and the tables of 2^-f and log2(1 + f).

    python tools/make_scalar_tables.py > rtcore/csrc/rtcore_scalar.c

Nodes at f = i/128, to nearest (SPEC.md section 6). Needs mpmath. Neighbours: make_sigma_table.py.
"""

import mpmath

HEAD = """/* rtcore_scalar.c - square root, reciprocal, powers and logarithms of two, in integers (SPEC.md 6).
 *
 * One bit of a root or a quotient at a time: exact, and no core needs a division instruction. 2^-f and log2(1 + f) are
 * linear between the nodes of tables of 129. The file is written by tools/make_scalar_tables.py.
 * Neighbours: rtcore_fixed.h.
 */
#include "rtcore_fixed.h"

#define NODES 129 /* f = 0 .. 1 */

/* clang-format off */
"""

CODE = """/* clang-format on */

uint32_t rtcore_isqrt(uint64_t v) {
    uint64_t root = 0;
    for (uint64_t bit = (uint64_t)1 << 60; bit != 0; bit >>= 2) {
        const uint64_t with = root + bit;
        root >>= 1;
        if (v >= with) {
            v -= with;
            root += bit;
        }
    }
    return (uint32_t)root;
}

uint32_t rtcore_reciprocal(uint32_t d) {
    uint32_t quotient = 0;
    uint32_t rest = 1073741824; /* 2^30 */
    for (int i = 0; i <= 30; i++) {
        quotient <<= 1;
        if (rest >= d) {
            rest -= d;
            quotient |= 1;
        }
        rest <<= 1;
    }
    return quotient;
}

uint32_t rtcore_exp2_minus(uint64_t u) {
    if (u >> 24 > 30) {
        return 0;
    }
    const uint32_t low = (uint32_t)u & 16777215;
    const uint32_t f = low & 131071;
    const uint32_t *const node = rtcore_exp2_table + (low >> 17);
    const int64_t y = (int64_t)((uint64_t)node[0] * (131072 - f) + (uint64_t)node[1] * f);
    return (uint32_t)rtcore_rshift_round(rtcore_rshift_round(y, 17), (int)(u >> 24));
}

uint32_t rtcore_log2(uint32_t d) {
    const uint32_t f = d & 8388607;
    const uint32_t *const node = rtcore_log2_table + ((d >> 23) & 127);
    const int64_t y = (int64_t)((uint64_t)node[0] * (8388608 - f) + (uint64_t)node[1] * f);
    return (uint32_t)rtcore_rshift_round(y, 23);
}
"""


def table(name: str, what: str, function) -> str:
    """One table of 129 nodes in Q30, ten to a line."""
    with mpmath.workdps(40):
        nodes = [int(mpmath.nint(function(mpmath.mpf(i) / 128) * 2**30)) for i in range(129)]
    lines = [", ".join(map(str, nodes[i : i + 10])) for i in range(0, 129, 10)]
    return f"/* {what} */\nstatic const uint32_t {name}[NODES] = {{\n    " + ",\n    ".join(lines) + ",\n};\n"


def render() -> str:
    """The whole file."""
    exp2 = table("rtcore_exp2_table", "2^-f", lambda f: mpmath.mpf(2) ** -f)
    return HEAD + exp2 + table("rtcore_log2_table", "log2(1 + f)", lambda f: mpmath.log(1 + f, 2)) + CODE


if __name__ == "__main__":
    print(render(), end="")
