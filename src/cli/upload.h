/* Sending a package to the platform in parts (docs/api.md, "Uploading a package"). */
#ifndef TG_CLI_UPLOAD_H
#define TG_CLI_UPLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cli/api.h"
#include "wire/package.h"

#define CLI_UPLOAD_CONNECTIONS 4

struct cli_upload {
    const char *path;
    uint64_t part_size; /* 0: chosen by the file's size */
    bool keep_going;    /* take up an upload of the same file that was begun before */
    uint64_t retry_ms;  /* once begun: try so long without progress when the platform is away */
};

struct cli_uploaded {
    struct tg_wire_package package; /* strings live in api->arena */
    uint64_t parts;
    uint64_t sent; /* parts sent now; the rest was there already */
    bool resumed;
};

/* Parts go up in parallel, each with its digest; what was already acknowledged is not sent again.
 * The upload's id is remembered under DIR/uploads until the platform has accepted or refused the
 * file, so that a break of any kind costs at most the parts in flight. */
TG_RC cli_upload_file(struct cli_api *api, const struct cli_upload *u, struct cli_uploaded *out,
                      struct tg_err *err);

#endif
