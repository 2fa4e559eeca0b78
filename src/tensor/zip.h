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
    struct tg_bytes name; /* views into the file */
    struct tg_bytes data;
    uint32_t crc32;         /* of the data, as the directory says; not checked here */
    uint64_t header_offset; /* of its local header */
};

struct tg_zip {
    struct tg_zip_entry *v; /* in order of name; each name once */
    size_t n;
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
