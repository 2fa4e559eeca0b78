/* Writing packages (docs/spec/tgsp-1.0.md §2-§6). */
#ifndef TG_TGSP_BUILD_H
#define TG_TGSP_BUILD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/progress.h"
#include "crypto/aead.h"
#include "crypto/kem.h"
#include "crypto/random.h"
#include "crypto/sign.h"
#include "tgsp/format.h"
#include "tgsp/src.h"

/* The regular files beneath a folder, in manifest order. */
struct tg_tgsp_input {
    const char *path; /* relative, by the rules of tgsp/path.h */
    uint64_t size;
    int fd; /* what is packed instead of the file; -1: the file itself */
};

struct tg_tgsp_inputs;

/* Walk the folder. Refuses symlinks, devices, sockets, FIFOs, paths that break the rules or
 * collide, files under TG_TGSP_RESERVED_DIR, and more than TG_TGSP_FILES_MAX files: each named in
 * err with what to do. Empty folders are not carried. @retval TG_E_FORMAT such a thing @retval
 * TG_E_IO
 * @retval TG_E_NOTFOUND no such folder  @retval TG_E_LIMIT */
TG_RC tg_tgsp_inputs_scan(const char *dir, struct tg_tgsp_inputs **out, struct tg_err *err);
void tg_tgsp_inputs_free(struct tg_tgsp_inputs *in);
TG_DEFINE_AUTO(struct tg_tgsp_inputs, tg_tgsp_inputs_freep, tg_tgsp_inputs_free);
size_t tg_tgsp_inputs_count(const struct tg_tgsp_inputs *in);
const struct tg_tgsp_input *tg_tgsp_inputs_at(const struct tg_tgsp_inputs *in, size_t i);
uint64_t tg_tgsp_inputs_bytes(const struct tg_tgsp_inputs *in);
/* Open input i for reading (beneath the folder, no symlinks); the caller closes *fd. */
TG_RC tg_tgsp_inputs_open(const struct tg_tgsp_inputs *in, size_t i, int *fd, struct tg_err *err);

/* Pack something else in the place of input i: all that *fd (a regular file) holds, as `path`.
 * Takes *fd (-1 afterwards). The order of inputs may change.
 * @retval TG_E_FORMAT the path breaks the rules or collides with another; then nothing changed */
TG_RC tg_tgsp_inputs_replace(struct tg_tgsp_inputs *in, size_t i, const char *path, int *fd,
                             struct tg_err *err);

struct tg_tgsp_build {
    const struct tg_tgsp_inputs *inputs;
    struct tg_tgsp_model model; /* sequence as given; see sequence_from_time */
    bool sequence_from_time;    /* sequence = created_at in Unix seconds */
    struct tg_tgsp_validity validity;
    struct tg_tgsp_constraints constraints;
    struct tg_bytes provenance; /* JSON object text; n == 0: none */
    const struct tg_kem_pk *const *recipients;
    size_t n_recipients; /* at least one */
    const struct tg_sign_sk *signer;
    enum tg_aead aead;
    uint64_t chunk_size; /* 0: TG_TGSP_CHUNK_DEFAULT; raised until the chunks fit */
    int64_t created_at;
    bool no_inputs_digest;        /* leave TG_TGSP_INPUTS_PATH out of the payload */
    const struct tg_rng *rng;     /* NULL: the system's */
    bool deterministic_signature; /* fixed vectors only */
    unsigned threads;             /* 0: all processors */
    struct tg_progress *progress; /* bytes of plaintext; may be NULL */
};

/* What was made. */
struct tg_tgsp_built {
    uint8_t h[TG_TGSP_H_LEN];
    uint8_t package_id[TG_TGSP_PACKAGE_ID_LEN];
    uint64_t sequence, files, plain_len, chunks, chunk_size, size;
};

/* Write path atomically (mode 0644; replace false: TG_E_EXISTS). An input that changes its size
 * while it is read is TG_E_STATE. built may be NULL. */
TG_RC tg_tgsp_build(const struct tg_tgsp_build *b, const char *path, bool replace,
                    struct tg_tgsp_built *built, struct tg_err *err);

/* Write a copy with one more signature to out_path (which may be the source's own path, with
 * replace). The package's structure, hashes and chunk digests are checked first: nobody signs
 * broken bytes. progress (may be NULL) hears of nearly twice the file's bytes: checked, then
 * copied.
 * @retval TG_E_EXISTS the key has signed already, or out_path exists  @retval TG_E_LIMIT 16 already
 */
TG_RC tg_tgsp_cosign(const struct tg_src *src, const struct tg_sign_sk *signer,
                     const char *out_path, bool replace, struct tg_progress *progress,
                     struct tg_err *err);

#endif
