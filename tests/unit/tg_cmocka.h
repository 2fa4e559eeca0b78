/* What every cmocka test includes, in the order cmocka wants it. */
#ifndef TG_TESTS_CMOCKA_H
#define TG_TESTS_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/err.h"

/* Fails with the error's own words. `err` must be in scope. */
#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        enum tg_rc rc_ok_ = (expr);                                                                \
        if (rc_ok_ != TG_OK)                                                                       \
            fail_msg("%s: %s: %s", #expr, tg_rc_name(rc_ok_), err.msg);                            \
    } while (0)

#define assert_rc(expr, expected)                                                                  \
    do {                                                                                           \
        enum tg_rc rc_got_ = (expr);                                                               \
        if (rc_got_ != (expected))                                                                 \
            fail_msg("%s: got %s, expected %s (%s)", #expr, tg_rc_name(rc_got_),                   \
                     tg_rc_name(expected), err.msg);                                               \
    } while (0)

#define assert_contains(haystack, needle)                                                          \
    do {                                                                                           \
        if (strstr((haystack), (needle)) == NULL)                                                  \
            fail_msg("\"%s\" does not contain \"%s\"", (haystack), (needle));                      \
    } while (0)

#endif
