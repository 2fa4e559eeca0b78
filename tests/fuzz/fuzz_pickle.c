/* Pickles: every node that can be reached is whole. */
#include <stdint.h>
#include <stdlib.h>

#include "tensor/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_arena *arena = NULL;
    const struct tg_pickle_node *root = NULL;

    if (tg_arena_new(TG_PICKLE_ARENA_MAX, &arena) != TG_OK)
        abort();
    if (tg_pickle_read(tg_bytes_make(data, n), "fuzz", arena, &root, &err) == TG_OK)
        for (size_t i = 0; i < root->n; i++)
            if (root->items[i] == NULL || root->items[i]->depth > TG_PICKLE_DEPTH_MAX + 1)
                abort();
    tg_arena_free(arena);
    return 0;
}
