/* Blocks of `name = hex` lines, an empty line between two blocks; # begins a comment line. */
#ifndef TG_TESTS_CRYPTO_VECTORS_H
#define TG_TESTS_CRYPTO_VECTORS_H

#include "../tg_cmocka.h"

#include "base/bytes.h"

struct vec_field {
    struct tg_bytes name, text; /* as they stand */
};

struct vec {
    struct tg_buf file;
    struct tg_bytes rest;
    struct vec_field f[16];
    size_t n;
    struct tg_buf hex[16]; /* decoded on demand */
    size_t blocks;
};

/* $TG_VECTORS/published/name */
void vec_open(struct vec *v, const char *name);
bool vec_next(struct vec *v);
void vec_close(struct vec *v);
/* The field's bytes; fails when it is missing or not hex. Valid until the next block. */
struct tg_bytes vec_hex(struct vec *v, const char *name);
bool vec_is(const struct vec *v, const char *name, const char *text);

#endif
