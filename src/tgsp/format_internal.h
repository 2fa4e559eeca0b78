/* Shared by the parsers of this folder. */
#ifndef TG_TGSP_FORMAT_INTERNAL_H
#define TG_TGSP_FORMAT_INTERNAL_H

#include "base/bytes.h"
#include "base/err.h"
#include "codec/json.h"
#include "tgsp/format.h"

/* `crit` (spec §1): at most 16 distinct dotted paths "<root>.field.field" that exist in the section
 * and that this reader implements. Only entries of `root` are looked at; tg_crit_roots checks the
 * rest.
 * @retval TG_E_FORMAT does not exist   @retval TG_E_UNSUPPORTED not implemented here */
TG_RC tg_crit_check(const struct tg_jlist *crit, const char *root, const struct tg_jschema *schema,
                    struct tg_bytes json, struct tg_err *err);
/* All distinct, each beginning with one of the NULL-terminated roots. `what` names the list. */
TG_RC tg_crit_roots(const struct tg_jlist *crit, const char *const *roots, const char *what,
                    struct tg_err *err);

/* n ids of 16 bytes, `stride` bytes apart, all different? @retval TG_E_FORMAT err: "<what>: id ...
 * twice" */
TG_RC tg_ids_distinct(const uint8_t *first, size_t n, size_t stride, const char *what,
                      struct tg_err *err);

/* "MAJOR.MINOR.PATCH", each 0..2^31-1 without leading zeros. */
TG_RC tg_version_parse(const char *s, uint64_t v[3]);

/* What the recipients' and grants' blocks look like. */
extern const struct tg_jschema tg_recipient_schema;
extern const struct tg_jschema tg_signature_schema;

/* out has 33 bytes. */
void tg_id_hex(const uint8_t id[16], char out[33]);

#endif
