/* A selection of files, seen from inside. */
#ifndef TG_TGSP_SELECT_INTERNAL_H
#define TG_TGSP_SELECT_INTERNAL_H

#include "tgsp/package.h"

struct tg_tgsp_select {
    bool *file;       /* per manifest.files */
    uint64_t *chunks; /* ascending, each once */
    uint64_t n_chunks, bytes;
    size_t n_files;
};

#endif
