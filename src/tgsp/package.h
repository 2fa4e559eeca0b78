/* Reading a package, in the order of docs/spec/tgsp-1.0.md §7. A later step refuses (TG_E_STATE)
 * when an earlier one has not succeeded, so no order of calls releases an unverified byte:
 *
 *     tg_tgsp_open     lengths, magic, signature section         (identity: tg_tgsp_h)
 *     tg_tgsp_verify   signatures, header, hashes, manifest and recipients, model name, threshold
 *     tg_tgsp_admit    validity, constraints, rollback: the device's policy
 *     tg_tgsp_unwrap   the file key by recipient block, or _unwrap_grant; commitment
 *     tg_tgsp_read*    chunks: digest, tag, then plaintext straight into the caller's memory
 *
 * For strangers: tg_tgsp_inspect instead of _verify parses everything, marked as unverified; it
 * never leads to plaintext. For the platform: _verify with the publishers' keys, then
 * tg_tgsp_check_payload.
 *
 * Codes: TG_E_FORMAT bad bytes; TG_E_AUTH bad signature, hash, digest, tag, commitment;
 * TG_E_NOTFORKEY no block for this key; TG_E_EXPIRED; TG_E_ROLLBACK; TG_E_DENIED role, model name,
 * threshold, fleet, agent version; TG_E_UNSUPPORTED version, algorithm, crit; TG_E_LIMIT; TG_E_IO;
 * TG_E_NOMEM. Texts: "model.tgsp: manifest, offset 1034, model.name: ...". */
#ifndef TG_TGSP_PACKAGE_H
#define TG_TGSP_PACKAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/progress.h"
#include "crypto/kem.h"
#include "crypto/sign.h"
#include "tgsp/deployment.h"
#include "tgsp/follow.h"
#include "tgsp/format.h"
#include "tgsp/rollback.h"
#include "tgsp/src.h"
#include "tgsp/trust.h"

struct tg_tgsp;

/* src is copied; what it borrows must outlive the package. Reads the lengths, the header and the
 * signature section; parses only the latter. */
TG_RC tg_tgsp_open(const struct tg_src *src, struct tg_tgsp **out, struct tg_err *err);
void tg_tgsp_free(struct tg_tgsp *p); /* wipes the keys */
TG_DEFINE_AUTO(struct tg_tgsp, tg_tgsp_freep, tg_tgsp_free);

/* TG_TGSP_H_LEN bytes, borrowed: the package's identity. From _open on. */
const uint8_t *tg_tgsp_h(const struct tg_tgsp *p);
/* Entries of the signature section, unverified. */
const struct tg_tgsp_signatures *tg_tgsp_signatures_get(const struct tg_tgsp *p);

/* Verify against the trust store and parse. */
TG_RC tg_tgsp_verify(struct tg_tgsp *p, const struct tg_trust *trust, struct tg_err *err);
/* Parse without believing anything (hashes of the sections are still compared with the header). */
TG_RC tg_tgsp_inspect(struct tg_tgsp *p, struct tg_err *err);
bool tg_tgsp_verified(const struct tg_tgsp *p);
/* Key ids (TG_SIGN_ID_LEN bytes each) of the author entries that verified and counted. */
size_t tg_tgsp_signers(const struct tg_tgsp *p, const uint8_t *ids[TG_TGSP_SIGNERS_MAX]);

/* NULL before _verify or _inspect. Borrowed. */
const struct tg_tgsp_header *tg_tgsp_header_get(const struct tg_tgsp *p);
const struct tg_tgsp_manifest *tg_tgsp_manifest_get(const struct tg_tgsp *p);
const struct tg_tgsp_recipients *tg_tgsp_recipients_get(const struct tg_tgsp *p);
const struct tg_tgsp_geometry *tg_tgsp_geometry_get(const struct tg_tgsp *p);
/* A section's raw bytes (not the payload's), after _verify or _inspect. */
struct tg_bytes tg_tgsp_section_raw(const struct tg_tgsp *p, enum tg_tgsp_section s);
/* Where a section's bytes (after the length field) begin, and how many they are. */
void tg_tgsp_section_at(const struct tg_tgsp *p, enum tg_tgsp_section s, uint64_t *off,
                        uint64_t *len);

/* The reader's policy. Each part is left out only on purpose. */
struct tg_tgsp_policy {
    bool check_time; /* validity, against `now` */
    int64_t now;
    const char *fleet;                /* NULL: not on a device, constraints.fleets not compared */
    const char *agent_version;        /* NULL: min_agent not compared; else "MAJOR.MINOR.PATCH" */
    const struct tg_rollback *record; /* NULL: no rollback check */
    const struct tg_deployment *deployment; /* NULL: none; must be verified; must name this H */
    const struct tg_trust *trust;           /* for reset counts; NULL: none */
};

TG_RC tg_tgsp_admit(struct tg_tgsp *p, const struct tg_tgsp_policy *policy, struct tg_err *err);
/* The query that rollback decisions about this package are made with (after _verify). The agent
 * uses it with tg_rollback_accept once the package is healthy. */
struct tg_rollback_query tg_tgsp_rollback_query(const struct tg_tgsp *p,
                                                const struct tg_tgsp_policy *policy);

/* The file key by this key's own block, then the commitment. */
TG_RC tg_tgsp_unwrap(struct tg_tgsp *p, const struct tg_kem_sk *sk, struct tg_err *err);
/* The file key by a grant (tgsp/grant.h): its signature by a `granter`, H, package_id, own id,
 * times, commitment. */
struct tg_grant;
TG_RC tg_tgsp_unwrap_grant(struct tg_tgsp *p, const struct tg_grant *g,
                           const struct tg_trust *trust, int64_t now, const struct tg_kem_sk *sk,
                           struct tg_err *err);

/* Some of a package's files, and the chunks they lie in. */
struct tg_tgsp_select;
/* The files whose path matches one of n patterns: fnmatch(3) with `*` and `?` not matching '/'; a
 * pattern that matches a folder takes everything beneath it. The package's own files
 * (tgsp/path.h) never match. After _verify or _inspect; p must outlive it.
 * @retval TG_E_NOTFOUND a pattern matches no file */
TG_RC tg_tgsp_select_new(const struct tg_tgsp *p, const char *const *patterns, size_t n,
                         struct tg_tgsp_select **out, struct tg_err *err);
void tg_tgsp_select_free(struct tg_tgsp_select *s);
TG_DEFINE_AUTO(struct tg_tgsp_select, tg_tgsp_select_freep, tg_tgsp_select_free);
/* Is manifest.files[i] one of them? */
bool tg_tgsp_select_has(const struct tg_tgsp_select *s, size_t i);
size_t tg_tgsp_select_files(const struct tg_tgsp_select *s);
uint64_t tg_tgsp_select_chunks(const struct tg_tgsp_select *s);
/* Bytes of plaintext in those chunks. */
uint64_t tg_tgsp_select_bytes(const struct tg_tgsp_select *s);

/* How bulk work is done. NULL anywhere below: all processors, no progress, everything. */
struct tg_tgsp_run {
    unsigned threads;                  /* 0: all processors */
    struct tg_progress *progress;      /* bytes of plaintext; may be NULL */
    const struct tg_tgsp_select *only; /* read no other chunks; NULL: all */
    struct tg_follow *follow; /* the package's source is this one's: chunks are taken as they
                                 arrive (tgsp/follow.h); not together with `only` */
};

/* Everything below is one engine: threads over independent chunks; each chunk is read (never
 * mapped: what was hashed is what is decrypted, whoever writes to the file meanwhile), hashed and
 * decrypted while it is in the processor's cache, at most TG_TGSP_SLICE of it at a time. */
#define TG_TGSP_SLICE (UINT32_C(512) << 10)

/* Any byte range of the plaintext [off, off + n) into out. Whole chunks are decrypted in place,
 * edges through one chunk of scratch. threads: 0: all processors; with 1 none is made. out is wiped
 * on failure. @retval TG_E_LIMIT beyond the payload */
TG_RC tg_tgsp_read(struct tg_tgsp *p, uint64_t off, void *out, size_t n, unsigned threads,
                   struct tg_err *err);
/* The whole plaintext (payload_plain_len bytes at out) and the zero-gap check; with run->only what
 * lies in other chunks is left as it is. All of out is wiped on failure. The memory may be locked
 * and hidden from system calls: only this code writes it. */
TG_RC tg_tgsp_read_all(struct tg_tgsp *p, uint8_t *out, const struct tg_tgsp_run *run,
                       struct tg_err *err);
/* Called with each chunk's verified plaintext, in any order, from several threads at once. The
 * memory is the engine's, and wiped afterwards. */
typedef enum tg_rc tg_tgsp_sink_fn(void *ctx, uint64_t off, struct tg_bytes plain,
                                   struct tg_err *err);
/* The plaintext chunk by chunk in bounded memory (a chunk and a slice per thread), zero gaps
 * checked. No file may be acted on before this returns TG_OK. */
TG_RC tg_tgsp_each(struct tg_tgsp *p, tg_tgsp_sink_fn *sink, void *ctx,
                   const struct tg_tgsp_run *run, struct tg_err *err);

/* One thread's share of the engine, for callers that schedule chunks themselves. */
struct tg_tgsp_worker;
TG_RC tg_tgsp_worker_new(struct tg_tgsp *p, struct tg_tgsp_worker **out, struct tg_err *err);
void tg_tgsp_worker_free(struct tg_tgsp_worker *w);
TG_DEFINE_AUTO(struct tg_tgsp_worker, tg_tgsp_worker_freep, tg_tgsp_worker_free);
/* Chunk i's plaintext (tg_tgsp_chunk_plain bytes) at out; wiped on failure. Asks the package's
 * source for the chunk's bytes, in slices, from the calling thread, and for nothing else. */
TG_RC tg_tgsp_worker_chunk(struct tg_tgsp_worker *w, uint64_t i, uint8_t *out, struct tg_err *err);
/* Are the gaps between files inside [off, off + plain.n) zero? @retval TG_E_FORMAT */
TG_RC tg_tgsp_check_gaps(const struct tg_tgsp *p, uint64_t off, struct tg_bytes plain,
                         struct tg_err *err);

/* Stored chunks against their digests in the manifest; no key needed; a slice of memory per thread.
 * After _verify or _inspect. */
TG_RC tg_tgsp_check_payload(struct tg_tgsp *p, const struct tg_tgsp_run *run, struct tg_err *err);

#endif
