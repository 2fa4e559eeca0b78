/* The writer's inside: build.c lays out and signs, build_payload.c fills the payload. */
#ifndef TG_TGSP_BUILD_INTERNAL_H
#define TG_TGSP_BUILD_INTERNAL_H

#include "base/file.h"
#include "tgsp/build.h"

#define TG_NOT_AN_INPUT SIZE_MAX

/* One file of the payload: where its bytes come from. */
struct tg_build_file {
    size_t input;     /* index into the inputs, or TG_NOT_AN_INPUT: the inputs' digests */
    const char *name; /* borrowed */
};

struct tg_build_plan {
    const struct tg_tgsp_build *b;
    struct tg_tgsp_file *files; /* path, size, offset */
    struct tg_build_file *from;
    size_t n;
    size_t digest_file; /* index of TG_TGSP_INPUTS_PATH, or TG_NOT_AN_INPUT */
    struct tg_tgsp_geometry g;
};

/* Where the payload goes, and under which key. */
struct tg_build_target {
    const struct tg_newfile *file;
    uint64_t payload_off;
    const uint8_t *payload_key;
    uint8_t *digests; /* 32 * chunks, filled */
};

TG_RC tg_build_payload(const struct tg_build_plan *plan, const struct tg_build_target *to,
                       struct tg_err *err);

#endif
