/* JSON in and out by field tables.
 *
 * A schema is a table of fields of a C struct; the same table decodes and encodes, so the two
 * cannot drift apart. Decoding is strict (docs/spec/tgsp-1.0.md §1): RFC 8259 UTF-8, no BOM, one
 * object, no duplicate keys after unescaping, no U+0000, no lone surrogates, bounded depth, numbers
 * are integers 0 .. 2^53-1 without sign, fraction or exponent, byte strings are canonical unpadded
 * base64url. A missing required field, a wrong type or length, or null is an error that names the
 * dotted path.
 *
 *     struct point { const char *name; uint64_t x; uint8_t id[16]; };
 *     static const struct tg_jfield point_fields[] = {
 *         TG_J_STR(struct point, name, 1, 256, TG_J_REQ),
 *         TG_J_U64(struct point, x, 0, 100, TG_J_REQ),
 *         TG_J_FIXED(struct point, id, TG_J_REQ),
 *     };
 *     static const struct tg_jschema point_schema = TG_J_SCHEMA(struct point, point_fields,
 * TG_J_IGNORE_UNKNOWN);
 */
#ifndef TG_CODEC_JSON_H
#define TG_CODEC_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"

#define TG_JSON_DEPTH_MAX 16
#define TG_JSON_MARKS_MAX (1U << 20) /* of the characters { [ , : outside strings */
#define TG_JSON_INT_MAX ((UINT64_C(1) << 53) - 1)

enum tg_jtype {
    TG_JT_STR,   /* const char *, NUL-terminated; min..max bytes */
    TG_JT_U64,   /* uint64_t; min..max value */
    TG_JT_BOOL,  /* bool */
    TG_JT_TIME,  /* int64_t Unix seconds; text is exactly YYYY-MM-DDTHH:MM:SSZ */
    TG_JT_FIXED, /* uint8_t[max], base64url of exactly max bytes */
    TG_JT_BYTES, /* struct tg_bytes; base64url of min..max bytes */
    TG_JT_HEX,   /* uint8_t[max], lower-case hex of exactly max bytes (for APIs people read) */
    TG_JT_ENUM,  /* int; one of sub.names, by index */
    TG_JT_OBJ,   /* nested struct in place, by sub.schema */
    TG_JT_OBJS,  /* struct tg_jlist of structs by sub.schema; min..max elements */
    TG_JT_STRS,  /* struct tg_jlist of const char *; min..max elements, each 1..4096 bytes */
    TG_JT_MAP,   /* struct tg_jlist of struct tg_jpair (string -> string); min..max pairs */
    TG_JT_RAW    /* struct tg_bytes: any JSON value as text, kept and written as it is */
};

enum {
    TG_J_REQ = 0,  /* must be there */
    TG_J_OPT = 1,  /* may be missing: then the member is zero and its has_off bool false */
    TG_J_SKIP0 = 2 /* when encoding, leave out if zero/NULL/empty (implies TG_J_OPT) */
};

enum { TG_J_IGNORE_UNKNOWN = 0, TG_J_REFUSE_UNKNOWN = 1 };

struct tg_jlist {
    void *items; /* array of n structs / const char * / tg_jpair, in the arena */
    size_t n;
};

struct tg_jpair {
    const char *key;
    const char *value;
};

struct tg_jschema;

struct tg_jfield {
    const char *name;
    enum tg_jtype type;
    unsigned flags;
    size_t off;
    size_t has_off; /* offset of a bool set when present; SIZE_MAX: none */
    uint64_t min, max;

    union {
        const struct tg_jschema *schema;
        const char *const *names; /* NULL-terminated */
    } sub;
};

struct tg_jschema {
    const struct tg_jfield *fields;
    size_t n;
    size_t size; /* sizeof the struct */
    unsigned unknown;
};

#define TG_J_SCHEMA(type, table, unk)                                                              \
    {                                                                                              \
        .fields = (table), .n = TG_ARRAY_LEN(table), .size = sizeof(type), .unknown = (unk)        \
    }
#define TG_J_F_(type_, m, jt, lo, hi, fl)                                                          \
    .name = #m, .type = (jt), .flags = (fl), .off = offsetof(type_, m), .has_off = SIZE_MAX,       \
    .min = (lo), .max = (hi)
#define TG_J_STR(t, m, lo, hi, fl)                                                                 \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_STR, lo, hi, fl), .sub = { NULL }                                      \
    }
#define TG_J_U64(t, m, lo, hi, fl)                                                                 \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_U64, lo, hi, fl), .sub = { NULL }                                      \
    }
#define TG_J_BOOL(t, m, fl)                                                                        \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_BOOL, 0, 0, fl), .sub = { NULL }                                       \
    }
#define TG_J_TIME(t, m, fl)                                                                        \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_TIME, 0, 0, fl), .sub = { NULL }                                       \
    }
#define TG_J_FIXED(t, m, fl)                                                                       \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_FIXED, 0, sizeof(((t *)0)->m), fl), .sub = { NULL }                    \
    }
#define TG_J_HEX(t, m, fl)                                                                         \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_HEX, 0, sizeof(((t *)0)->m), fl), .sub = { NULL }                      \
    }
#define TG_J_BYTES(t, m, lo, hi, fl)                                                               \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_BYTES, lo, hi, fl), .sub = { NULL }                                    \
    }
#define TG_J_ENUM(t, m, nm, fl)                                                                    \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_ENUM, 0, 0, fl), .sub = {.names = (nm) }                               \
    }
#define TG_J_OBJ(t, m, sch, fl)                                                                    \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_OBJ, 0, 0, fl), .sub = {.schema = (sch) }                              \
    }
#define TG_J_OBJS(t, m, sch, lo, hi, fl)                                                           \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_OBJS, lo, hi, fl), .sub = {.schema = (sch) }                           \
    }
#define TG_J_STRS(t, m, lo, hi, fl)                                                                \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_STRS, lo, hi, fl), .sub = { NULL }                                     \
    }
#define TG_J_MAP(t, m, lo, hi, fl)                                                                 \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_MAP, lo, hi, fl), .sub = { NULL }                                      \
    }
#define TG_J_RAW(t, m, hi, fl)                                                                     \
    {                                                                                              \
        TG_J_F_(t, m, TG_JT_RAW, 0, hi, fl), .sub = { NULL }                                       \
    }

/* Decode text into *out (a struct of schema->size bytes). Strings, lists and bytes live in `arena`.
 * `what` names the document in errors ("header", "manifest", "request body").
 * @retval TG_E_FORMAT not that JSON; err: "manifest.model.name: ..." or "manifest: line 3: ..."
 * @retval TG_E_NOMEM  arena full or memory out.       *out is untouched on failure. */
TG_RC tg_json_decode(const struct tg_jschema *schema, struct tg_bytes text, const char *what,
                     struct tg_arena *arena, void *out, struct tg_err *err);

/* Encode compactly, fields in table order. @retval TG_E_NOMEM @retval TG_E_LIMIT buffer's max
 * @retval TG_E_FORMAT a member breaks its own limits (a string over max, not UTF-8) */
TG_RC tg_json_encode(const struct tg_jschema *schema, const void *in, struct tg_buf *out,
                     struct tg_err *err);

/* Append a quoted and escaped JSON string / `"key":` for hand-written output. */
TG_RC tg_json_quote(struct tg_buf *out, struct tg_bytes s);

/* Does a dotted path of member names ("model.name") exist in the text (already valid JSON)? */
TG_RC tg_json_has_path(struct tg_bytes text, const char *path, bool *yes, struct tg_err *err);

/* The strict lexical rules of the top comment alone, without a schema. */
TG_RC tg_json_check(struct tg_bytes text, const char *what, struct tg_err *err);

/* The same text with two-space indentation, for people (text must be valid JSON). */
TG_RC tg_json_pretty(struct tg_bytes text, struct tg_buf *out, struct tg_err *err);

#endif
