/* The author's own list of which device has which KEM key: what makes a grant end to end.
 *
 * A text file, one device per line: `device-id kem-key-id` (both 32 lower-case hex characters),
 * then anything as a comment; empty lines and lines that begin with '#' are skipped. It is the
 * author's: commands only ever add lines to it, and only when asked. */
#ifndef TG_CLI_PINS_H
#define TG_CLI_PINS_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "crypto/kem.h"

#define CLI_PINS_FILE_MAX (16u << 20)

struct cli_pin {
    char device[33];
    uint8_t kem_key_id[TG_KEM_ID_LEN];
};

struct cli_pins {
    struct cli_pin *v;
    size_t n;
};

/* @retval TG_E_FORMAT a line is no pin, or a device stands there twice  @retval TG_E_NOTFOUND */
TG_RC cli_pins_parse(struct tg_bytes text, const char *name, struct cli_pins *out,
                     struct tg_err *err);
TG_RC cli_pins_load(const char *path, struct cli_pins *out, struct tg_err *err);
void cli_pins_done(struct cli_pins *p);
/* NULL: not pinned */
const struct cli_pin *cli_pins_find(const struct cli_pins *p, const char *device);
/* Write the file anew with one more line per device (it is made if missing). */
TG_RC cli_pins_add(const char *path, const struct cli_pin *more, size_t n, struct tg_err *err);

#endif
