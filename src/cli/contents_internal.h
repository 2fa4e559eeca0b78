/* Between checking and converting. */
#ifndef TG_CLI_CONTENTS_INTERNAL_H
#define TG_CLI_CONTENTS_INTERNAL_H

#include "cli/contents.h"
#include "tensor/weights.h"

/* An input's bytes. */
struct cli_map {
    void *p; /* NULL when empty */
    size_t n;
};

#define CLI_MAP_INIT                                                                               \
    {                                                                                              \
        .p = NULL, .n = 0                                                                          \
    }
TG_RC cli_map_open(const struct tg_tgsp_inputs *in, size_t i, struct cli_map *out,
                   struct tg_err *err);
void cli_map_done(struct cli_map *m);
struct tg_bytes cli_map_view(const struct cli_map *m);

/* NULL: there is no such pair. */
struct tg_jpair *cli_metadata_find(const struct tg_jlist *metadata, const char *key);
bool cli_name_ends(const char *name, const char *tail);

#endif
