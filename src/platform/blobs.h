/* Files of the blob folder and of uploads in progress. */
#ifndef TG_PLATFORM_BLOBS_H
#define TG_PLATFORM_BLOBS_H

#include "platform/call.h"
#include "store/package.h"

/* Serve a package's file by ranges. On a route with an audit action each answer that carries bytes
 * of it leaves a row that says which, before the first of them is sent. */
TG_RC tg_blob_serve(struct tg_call *c, const struct tg_package_row *package, struct tg_err *err);
/* Make `from` (synced here) appear under its SHA-256. Already there is fine. */
TG_RC tg_blob_put(struct tg_call *c, int from_fd, const char *from, const uint8_t sha256[32],
                  struct tg_err *err);
/* "<uploads>/<id>.part" in fresh memory. */
char *tg_upload_path(const struct tg_platform *p, const char *id);
/* A disk that is full becomes problem storage-full; other codes pass. Call right after the failure.
 */
enum tg_rc tg_call_io(struct tg_call *c, enum tg_rc rc);

/* At start: remove files that no row knows (an upload or a replacement was cut off). */
TG_RC tg_blobs_sweep(struct tg_platform *p, struct tg_db *db, struct tg_err *err);
/* Now and then: remove uploads that expired. */
TG_RC tg_uploads_expire(struct tg_platform *p, struct tg_db *db, int64_t now, struct tg_err *err);

#endif
