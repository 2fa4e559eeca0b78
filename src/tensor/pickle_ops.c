/* Tables: what follows each opcode, and the names that may stand in a pickle. */
#include "tensor/pickle_internal.h"

static const struct tg_pickle_op ops[256] = {
    ['('] = {"MARK",             TG_PA_NONE },
    ['.'] = {"STOP",             TG_PA_NONE },
    ['0'] = {"POP",              TG_PA_NONE },
    ['1'] = {"POP_MARK",         TG_PA_NONE },
    ['2'] = {"DUP",              TG_PA_NONE },
    ['F'] = {"FLOAT",            TG_PA_LINE },
    ['I'] = {"INT",              TG_PA_LINE },
    ['J'] = {"BININT",           TG_PA_4    },
    ['K'] = {"BININT1",          TG_PA_1    },
    ['L'] = {"LONG",             TG_PA_LINE },
    ['M'] = {"BININT2",          TG_PA_2    },
    ['N'] = {"NONE",             TG_PA_NONE },
    ['P'] = {"PERSID",           TG_PA_LINE },
    ['Q'] = {"BINPERSID",        TG_PA_NONE },
    ['R'] = {"REDUCE",           TG_PA_NONE },
    ['S'] = {"STRING",           TG_PA_LINE },
    ['T'] = {"BINSTRING",        TG_PA_B4   },
    ['U'] = {"SHORT_BINSTRING",  TG_PA_B1   },
    ['V'] = {"UNICODE",          TG_PA_LINE },
    ['X'] = {"BINUNICODE",       TG_PA_B4   },
    ['a'] = {"APPEND",           TG_PA_NONE },
    ['b'] = {"BUILD",            TG_PA_NONE },
    ['c'] = {"GLOBAL",           TG_PA_LINES},
    ['d'] = {"DICT",             TG_PA_NONE },
    ['}'] = {"EMPTY_DICT",       TG_PA_NONE },
    ['e'] = {"APPENDS",          TG_PA_NONE },
    ['g'] = {"GET",              TG_PA_LINE },
    ['h'] = {"BINGET",           TG_PA_1    },
    ['i'] = {"INST",             TG_PA_LINES},
    ['j'] = {"LONG_BINGET",      TG_PA_4    },
    ['l'] = {"LIST",             TG_PA_NONE },
    [']'] = {"EMPTY_LIST",       TG_PA_NONE },
    ['o'] = {"OBJ",              TG_PA_NONE },
    ['p'] = {"PUT",              TG_PA_LINE },
    ['q'] = {"BINPUT",           TG_PA_1    },
    ['r'] = {"LONG_BINPUT",      TG_PA_4    },
    ['s'] = {"SETITEM",          TG_PA_NONE },
    ['t'] = {"TUPLE",            TG_PA_NONE },
    [')'] = {"EMPTY_TUPLE",      TG_PA_NONE },
    ['u'] = {"SETITEMS",         TG_PA_NONE },
    ['G'] = {"BINFLOAT",         TG_PA_8    },
    [0x80] = {"PROTO",            TG_PA_1    },
    [0x81] = {"NEWOBJ",           TG_PA_NONE },
    [0x82] = {"EXT1",             TG_PA_1    },
    [0x83] = {"EXT2",             TG_PA_2    },
    [0x84] = {"EXT4",             TG_PA_4    },
    [0x85] = {"TUPLE1",           TG_PA_NONE },
    [0x86] = {"TUPLE2",           TG_PA_NONE },
    [0x87] = {"TUPLE3",           TG_PA_NONE },
    [0x88] = {"NEWTRUE",          TG_PA_NONE },
    [0x89] = {"NEWFALSE",         TG_PA_NONE },
    [0x8a] = {"LONG1",            TG_PA_B1   },
    [0x8b] = {"LONG4",            TG_PA_B4   },
    ['B'] = {"BINBYTES",         TG_PA_B4   },
    ['C'] = {"SHORT_BINBYTES",   TG_PA_B1   },
    [0x8c] = {"SHORT_BINUNICODE", TG_PA_B1   },
    [0x8d] = {"BINUNICODE8",      TG_PA_B8   },
    [0x8e] = {"BINBYTES8",        TG_PA_B8   },
    [0x8f] = {"EMPTY_SET",        TG_PA_NONE },
    [0x90] = {"ADDITEMS",         TG_PA_NONE },
    [0x91] = {"FROZENSET",        TG_PA_NONE },
    [0x92] = {"NEWOBJ_EX",        TG_PA_NONE },
    [0x93] = {"STACK_GLOBAL",     TG_PA_NONE },
    [0x94] = {"MEMOIZE",          TG_PA_NONE },
    [0x95] = {"FRAME",            TG_PA_8    },
    [0x96] = {"BYTEARRAY8",       TG_PA_B8   },
    [0x97] = {"NEXT_BUFFER",      TG_PA_NONE },
    [0x98] = {"READONLY_BUFFER",  TG_PA_NONE },
};

const struct tg_pickle_op *tg_pickle_op(uint8_t code)
{
    return &ops[code];
}

static enum tg_rc take_line(struct tg_rd *r, struct tg_bytes *out)
{
    struct tg_bytes end;
    size_t n = 0;

    while (n < r->rest.n && r->rest.p[n] != '\n')
        n++;
    if (n == r->rest.n)
        return TG_E_FORMAT;
    TG_TRY(tg_rd_bytes(r, n, out));
    return tg_rd_bytes(r, 1, &end);
}

static enum tg_rc take_counted(struct tg_rd *r, size_t width, struct tg_bytes *out)
{
    struct tg_bytes count = TG_BYTES_NONE;
    uint64_t n = 0;

    TG_TRY(tg_rd_bytes(r, width, &count));
    for (size_t i = width; i > 0; i--)
        n = n << 8 | count.p[i - 1];
    return n > r->rest.n ? TG_E_FORMAT : tg_rd_bytes(r, (size_t)n, out);
}

enum tg_rc tg_pickle_next(struct tg_rd *r, uint8_t *code, struct tg_bytes *arg)
{
    struct tg_bytes whole = r->rest, second;

    *arg = TG_BYTES_NONE;
    TG_TRY(tg_rd_u8(r, code));
    if (ops[*code].name == NULL)
        return TG_E_FORMAT;
    switch (ops[*code].arg) {
    case TG_PA_NONE:
        return TG_OK;
    case TG_PA_1:
        return tg_rd_bytes(r, 1, arg);
    case TG_PA_2:
        return tg_rd_bytes(r, 2, arg);
    case TG_PA_4:
        return tg_rd_bytes(r, 4, arg);
    case TG_PA_8:
        return tg_rd_bytes(r, 8, arg);
    case TG_PA_LINE:
        return take_line(r, arg);
    case TG_PA_LINES:
        TG_TRY(take_line(r, arg));
        TG_TRY(take_line(r, &second));
        *arg = tg_bytes_sub(whole, 1, arg->n + 1 + second.n);
        return TG_OK;
    case TG_PA_B1:
        return take_counted(r, 1, arg);
    case TG_PA_B4:
        return take_counted(r, 4, arg);
    case TG_PA_B8:
        return take_counted(r, 8, arg);
    }
    return TG_E_FORMAT;
}

/* ---- the allow-list ---- */

#define STORAGE(name_, type_)                                                                      \
    {                                                                                              \
        "torch", name_, TG_PG_STORAGE, type_                                                       \
    }
#define DTYPE(name_, type_)                                                                        \
    {                                                                                              \
        "torch", name_, TG_PG_DTYPE, type_                                                         \
    }

static const struct tg_pickle_global globals[] = {
    {"collections",   "OrderedDict",        TG_PG_ORDERED_DICT,      TG_W_COUNT},
    {"torch._utils",  "_rebuild_tensor_v2", TG_PG_REBUILD_TENSOR_V2, TG_W_COUNT},
    {"torch._utils",  "_rebuild_tensor_v3", TG_PG_REBUILD_TENSOR_V3, TG_W_COUNT},
    {"torch._utils",  "_rebuild_parameter", TG_PG_REBUILD_PARAMETER, TG_W_COUNT},
    {"torch",         "Size",               TG_PG_SIZE,              TG_W_COUNT},
    {"torch",         "UntypedStorage",     TG_PG_UNTYPED_STORAGE,   TG_W_COUNT},
    {"torch.storage", "UntypedStorage",     TG_PG_UNTYPED_STORAGE,   TG_W_COUNT},
    STORAGE("FloatStorage", TG_W_F32),
    STORAGE("DoubleStorage", TG_W_F64),
    STORAGE("HalfStorage", TG_W_F16),
    STORAGE("BFloat16Storage", TG_W_BF16),
    STORAGE("LongStorage", TG_W_I64),
    STORAGE("IntStorage", TG_W_I32),
    STORAGE("ShortStorage", TG_W_I16),
    STORAGE("CharStorage", TG_W_I8),
    STORAGE("ByteStorage", TG_W_U8),
    STORAGE("BoolStorage", TG_W_BOOL),
    STORAGE("ComplexFloatStorage", TG_W_C64),
    DTYPE("float32", TG_W_F32),
    DTYPE("float64", TG_W_F64),
    DTYPE("float16", TG_W_F16),
    DTYPE("bfloat16", TG_W_BF16),
    DTYPE("int64", TG_W_I64),
    DTYPE("int32", TG_W_I32),
    DTYPE("int16", TG_W_I16),
    DTYPE("int8", TG_W_I8),
    DTYPE("uint8", TG_W_U8),
    DTYPE("uint16", TG_W_U16),
    DTYPE("uint32", TG_W_U32),
    DTYPE("uint64", TG_W_U64),
    DTYPE("bool", TG_W_BOOL),
    DTYPE("complex64", TG_W_C64),
    DTYPE("float8_e5m2", TG_W_F8_E5M2),
    DTYPE("float8_e4m3fn", TG_W_F8_E4M3),
    DTYPE("float8_e8m0fnu", TG_W_F8_E8M0),
};

const struct tg_pickle_global *tg_pickle_global(struct tg_bytes module, struct tg_bytes name)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(globals); i++)
        if (tg_bytes_eq(module, tg_bytes_str(globals[i].module)) &&
            tg_bytes_eq(name, tg_bytes_str(globals[i].name)))
            return &globals[i];
    return NULL;
}

bool tg_pickle_split(struct tg_bytes arg, struct tg_bytes *module, struct tg_bytes *name)
{
    for (size_t i = 0; i < arg.n; i++)
        if (arg.p[i] == '\n') {
            *module = tg_bytes_sub(arg, 0, i);
            *name = tg_bytes_sub(arg, i + 1, arg.n);
            return true;
        }
    return false;
}

bool tg_pickle_culprit(struct tg_bytes pickle, struct tg_bytes *module, struct tg_bytes *name)
{
    struct tg_rd r = tg_rd_init(pickle);
    struct tg_bytes arg, before = TG_BYTES_NONE, last = TG_BYTES_NONE;
    uint8_t code;

    while (tg_pickle_next(&r, &code, &arg) == TG_OK) {
        bool names = code == 'c' || code == 'i';

        if (code == 'X' || code == 0x8c || code == 0x8d) {
            before = last;
            last = arg;
        }
        if (names && !tg_pickle_split(arg, module, name))
            return false;
        if (code == 0x93) { /* the two strings before it */
            *module = before;
            *name = last;
            names = before.n > 0;
        }
        if (names && tg_pickle_global(*module, *name) == NULL)
            return true;
    }
    return false;
}
