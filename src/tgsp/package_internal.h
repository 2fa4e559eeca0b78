/* A package being read: shared by package.c (sections, trust), admit.c (policy), unwrap.c (keys)
 * and read.c (chunks). */
#ifndef TG_TGSP_PACKAGE_INTERNAL_H
#define TG_TGSP_PACKAGE_INTERNAL_H

#include <stdatomic.h>

#include "base/secret.h"
#include "tgsp/package.h"

/* In the order of spec §7; each needs the one before. Inspected is a dead end on purpose. */
enum tg_tgsp_stage {
    TG_STAGE_OPENED,
    TG_STAGE_INSPECTED,
    TG_STAGE_VERIFIED,
    TG_STAGE_ADMITTED,
    TG_STAGE_UNWRAPPED
};

/* In locked memory. */
struct tg_tgsp_keys {
    uint8_t file_key[TG_TGSP_FILE_KEY_LEN];
    uint8_t payload_key[TG_AEAD_KEY_LEN];
};

struct tg_tgsp {
    struct tg_src src;
    struct tg_arena *arena;

    struct {
        uint64_t off, len;
    } sec[TG_TGSP_SEC_COUNT];
    struct tg_buf raw[TG_TGSP_SEC_COUNT]; /* not the payload's */
    uint8_t h[TG_TGSP_H_LEN];
    struct tg_tgsp_signatures sigs;
    struct tg_tgsp_header header;
    struct tg_tgsp_manifest manifest;
    struct tg_tgsp_recipients recipients;
    struct tg_tgsp_geometry geometry;
    enum tg_tgsp_stage stage;
    uint8_t signers[TG_TGSP_SIGNERS_MAX][TG_SIGN_ID_LEN];
    size_t n_signers;
    struct tg_secret *keys; /* struct tg_tgsp_keys, once unwrapped */
    /* One that has decrypted and waits for the next read; NULL: none. */
    _Atomic(struct tg_tgsp_worker *) spare;
};

/* @retval TG_E_STATE the package is not that far */
TG_RC tg_tgsp_need(const struct tg_tgsp *p, enum tg_tgsp_stage stage, struct tg_err *err);
const struct tg_tgsp_keys *tg_tgsp_keys_get(const struct tg_tgsp *p);
/* One thread's engine for chunks: with the payload key, or only for digests. */
TG_RC tg_tgsp_engine_new(struct tg_tgsp *p, bool decrypt, struct tg_tgsp_worker **out,
                         struct tg_err *err);
/* Chunk i (which exists): read, held against its digest and, when out is not NULL, decrypted into
 * it; out is wiped on failure. */
TG_RC tg_tgsp_engine_chunk(struct tg_tgsp_worker *w, uint64_t i, uint8_t *out, struct tg_err *err);

/* The first of n files, which ascend, whose end is after off; n: none. Gaps are before it and
 * behind it. */
size_t tg_tgsp_file_after(const struct tg_tgsp_file *v, size_t n, uint64_t off);

#endif
