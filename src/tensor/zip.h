/* The part of ZIP that PyTorch archives use: stored entries found through the central directory
 * (APPNOTE.TXT 6.3.9, §4.3.7, 4.3.12-4.3.16; ZIP64). Strict: whatever two readers could understand
 * differently is refused. */
#ifndef TG_TENSOR_ZIP_H
#define TG_TENSOR_ZIP_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/progress.h"

#define TG_ZIP_ENTRIES_MAX 200000
#define TG_ZIP_NAME_MAX 1024

struct tg_zip_entry {
    struct tg_bytes name;   /* views into the file */
    struct tg_bytes data;   /* nothing where only the file's end is there */
    uint64_t at, size;      /* of the data in the file; at: the least it can be, in that case */
    uint32_t crc32;         /* of the data, as the directory says; not checked here */
    uint64_t header_offset; /* of its local header */
    uint16_t flags;
};

struct tg_zip {
    struct tg_zip_entry *v; /* in order of name; each name once */
    size_t n;
    uint64_t dir_at; /* where the directory begins */
};

#define TG_ZIP_INIT                                                                                \
    {                                                                                              \
        .v = NULL, .n = 0                                                                          \
    }

/* Find all entries. `what` names the file in errors.
 * @retval TG_E_FORMAT       broken, cut, overlapping, or ambiguous
 * @retval TG_E_UNSUPPORTED  compressed or encrypted entries, several disks, a comment
 * @retval TG_E_LIMIT  @retval TG_E_NOMEM */
TG_RC tg_zip_open(struct tg_bytes file, const char *what, struct tg_zip *out, struct tg_err *err);
void tg_zip_done(struct tg_zip *z);

/* An archive of `size` bytes of which only the last are there.
 *
 * Where its directory begins, by its last TG_ZIP_END bytes or all it has. */
#define TG_ZIP_END 98
TG_RC tg_zip_directory(struct tg_bytes tail, uint64_t size, const char *what, uint64_t *at,
                       struct tg_err *err);
/* As tg_zip_open, by the bytes from the directory on. Local headers are not looked at:
 * tg_zip_locate does that for the entries that are used. */
TG_RC tg_zip_open_tail(struct tg_bytes tail, uint64_t size, const char *what, struct tg_zip *out,
                       struct tg_err *err);
/* Where the entry's data begins, by its local header and the name behind it: the TG_ZIP_LOCAL +
 * name.n bytes at header_offset, or what there is of them. @retval TG_E_FORMAT */
#define TG_ZIP_LOCAL 30
TG_RC tg_zip_locate(const struct tg_zip *z, const struct tg_zip_entry *e, struct tg_bytes head,
                    const char *what, uint64_t *at, struct tg_err *err);
/* NULL: no such entry. */
const struct tg_zip_entry *tg_zip_find(const struct tg_zip *z, struct tg_bytes name);

/* CRC-32 of ISO 3309, as ZIP has it. */
uint32_t tg_zip_crc32(struct tg_bytes data);
/* Is every entry what its CRC-32 says? Finds damage, not malice; reads all bytes, and counts them
 * for progress (may be NULL).
 * @retval TG_E_FORMAT err names the entry */
TG_RC tg_zip_check(const struct tg_zip *z, const char *what, struct tg_progress *progress,
                   struct tg_err *err);

#endif
