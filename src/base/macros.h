/* The few macros of the house. Everything that needs a compiler extension lives here. */
#ifndef TG_BASE_MACROS_H
#define TG_BASE_MACROS_H

#include <stddef.h>

/* Run `fn(&local)` when the local goes out of scope. */
#define TG_AUTO(fn) __attribute__((cleanup(fn)))
#define TG_MUST_USE __attribute__((warn_unused_result))
#define TG_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define TG_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Move a pointer out of a TG_AUTO variable: evaluates to its value and leaves NULL behind. */
#define tg_steal(pp)                                                                               \
    __extension__({                                                                                \
        __typeof__(pp) pp_ = (pp);                                                                 \
        __typeof__(*pp_) val_ = *pp_;                                                              \
        *pp_ = NULL;                                                                               \
        val_;                                                                                      \
    })

/* Define `name`, a cleanup for locals of pointer type `type *`, that calls `free_fn`. */
#define TG_DEFINE_AUTO(type, name, free_fn)                                                        \
    static inline void name(type **pp)                                                             \
    {                                                                                              \
        free_fn(*pp);                                                                              \
        *pp = NULL;                                                                                \
    }                                                                                              \
    struct tg_require_semicolon_

#endif
