/* Between the machine (pickle.c) and its tables (pickle_ops.c). */
#ifndef TG_TENSOR_PICKLE_INTERNAL_H
#define TG_TENSOR_PICKLE_INTERNAL_H

#include "tensor/pickle.h"

/* What follows an opcode. */
enum tg_pickle_arg {
    TG_PA_NONE,
    TG_PA_1, /* that many bytes */
    TG_PA_2,
    TG_PA_4,
    TG_PA_8,
    TG_PA_LINE,  /* text to the end of the line */
    TG_PA_LINES, /* two of them */
    TG_PA_B1,    /* length of 1, 4, 8 bytes (little-endian), then that many */
    TG_PA_B4,
    TG_PA_B8
};

struct tg_pickle_op {
    const char *name; /* NULL: no such opcode */
    enum tg_pickle_arg arg;
};

/* By its byte (pickletools.py names and describes all of them). */
const struct tg_pickle_op *tg_pickle_op(uint8_t code);
/* Take an opcode and its argument; of text lines without the last line end, of counted bytes
 * without the count. @retval TG_E_FORMAT cut, or no such opcode */
TG_RC tg_pickle_next(struct tg_rd *r, uint8_t *code, struct tg_bytes *arg);

/* The allow-list. NULL: not on it. */
const struct tg_pickle_global *tg_pickle_global(struct tg_bytes module, struct tg_bytes name);
/* Cut "module\nname". false: there is no line end */
bool tg_pickle_split(struct tg_bytes arg, struct tg_bytes *module, struct tg_bytes *name);

/* The first name in the pickle that is not on the allow-list, for error texts; without running
 * anything. false: none was found. */
bool tg_pickle_culprit(struct tg_bytes pickle, struct tg_bytes *module, struct tg_bytes *name);

#endif
