/* Any bytes as any wire document: the first byte chooses the schema. What decodes encodes, and that
 * decodes to the same. */
#include <stdint.h>
#include <stdlib.h>

#include "base/mem.h"
#include "wire/common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct tg_buf first = TG_BUF_INIT(TG_WIRE_ANSWER_MAX), second = TG_BUF_INIT(TG_WIRE_ANSWER_MAX);
    struct tg_err err = TG_ERR_INIT;

    if (size == 0 || tg_arena_new(16 << 20, &arena) != TG_OK)
        return 0;
    const struct tg_wire_schema *w = &tg_wire_schemas[data[0] % tg_wire_schemas_n];
    void *in = tg_arena_alloc(arena, 1, w->schema->size);
    void *again = tg_arena_alloc(arena, 1, w->schema->size);
    if (in != NULL && again != NULL &&
        tg_json_decode(w->schema, tg_bytes_make(data + 1, size - 1), w->name, arena, in, &err) ==
            TG_OK &&
        tg_json_encode(w->schema, in, &first, &err) == TG_OK) {
        check(tg_json_decode(w->schema, tg_buf_view(&first), w->name, arena, again, &err) == TG_OK);
        check(tg_json_encode(w->schema, again, &second, &err) == TG_OK);
        check(tg_bytes_eq(tg_buf_view(&first), tg_buf_view(&second)));
    }
    tg_buf_done(&first);
    tg_buf_done(&second);
    return 0;
}
