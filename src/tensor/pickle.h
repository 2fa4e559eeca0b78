/* Pickles of PyTorch as data. A pickle is a program for a stack machine that may call anything;
 * this reader knows the opcodes and names that describe tensors, builds a tree of nodes from them,
 * and calls nothing: a "call" becomes a node that says which of the known names it is of.
 * Everything else is refused, by name. */
#ifndef TG_TENSOR_PICKLE_H
#define TG_TENSOR_PICKLE_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "tensor/weights.h"

#define TG_PICKLE_MAX ((size_t)32 << 20) /* bytes of a pickle */
#define TG_PICKLE_DEPTH_MAX 64           /* containers in containers */
#define TG_PICKLE_STACK_MAX 400000
#define TG_PICKLE_MEMO_MAX 4000000
#define TG_PICKLE_ARENA_MAX ((size_t)256 << 20) /* nodes: 100,000 tensors */

/* What the names of the allow-list are. */
enum tg_pickle_global_kind {
    TG_PG_ORDERED_DICT,
    TG_PG_REBUILD_TENSOR_V2,
    TG_PG_REBUILD_TENSOR_V3,
    TG_PG_REBUILD_PARAMETER,
    TG_PG_SIZE,
    TG_PG_STORAGE,
    TG_PG_UNTYPED_STORAGE,
    TG_PG_DTYPE
};

struct tg_pickle_global {
    const char *module, *name;
    enum tg_pickle_global_kind kind;
    enum tg_wtype type; /* of storages and dtypes; TG_W_COUNT: not one of ours */
};

enum tg_pickle_kind {
    TG_PK_NONE,
    TG_PK_BOOL,
    TG_PK_INT,
    TG_PK_FLOAT,
    TG_PK_STR,
    TG_PK_TUPLE,
    TG_PK_LIST,
    TG_PK_SET,  /* always empty */
    TG_PK_DICT, /* items: key, value, key, value, ... in order of insertion */
    TG_PK_GLOBAL,
    TG_PK_CALL,   /* global, and items: the arguments */
    TG_PK_PERSID, /* items[0]: what a persistent id was given */
};

struct tg_pickle_node {
    enum tg_pickle_kind kind;
    uint8_t depth;
    bool ordered; /* a dict made as OrderedDict */
    int64_t i;    /* TG_PK_BOOL, TG_PK_INT */
    struct tg_bytes s;
    const struct tg_pickle_global *global;
    struct tg_pickle_node **items;
    size_t n, cap;
};

/* Read a pickle; *root and all below live in `arena`, strings in `pickle`. `what` names it in
 * errors, which give the offset and the opcode. Nodes may be shared, and contain themselves.
 * @retval TG_E_DENIED  it names something outside the allow-list
 * @retval TG_E_UNSUPPORTED an opcode or protocol that torch.save does not use for a state_dict
 * @retval TG_E_FORMAT  @retval TG_E_LIMIT  @retval TG_E_NOMEM */
TG_RC tg_pickle_read(struct tg_bytes pickle, const char *what, struct tg_arena *arena,
                     const struct tg_pickle_node **root, struct tg_err *err);

#endif
