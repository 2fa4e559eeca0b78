/* H.part.tag: which bytes of H.part were fetched, and of which file. */
#ifndef TG_AGENT_FETCH_RECORD_H
#define TG_AGENT_FETCH_RECORD_H

#include <stdint.h>

#include "base/err.h"
#include "base/spans.h"

/* part: the path of the part. *out is untouched on failure. @retval TG_E_NOTFOUND no record
 * @retval TG_E_FORMAT  none that can be read, or of another file (etag) or size */
TG_RC tg_fetch_record_load(const char *part, const char *etag, uint64_t size, struct tg_spans *out);
/* Durably, as a whole. */
TG_RC tg_fetch_record_save(const char *part, const char *etag, uint64_t size,
                           const struct tg_spans *have, struct tg_err *err);

#endif
