/* The worker's native socket: messages of fixed layout over a SOCK_SEQPACKET Unix socket between a
 * program that uses libtensorguard and the worker (docs/spec/native-1.0.md §2). Both run on one
 * machine: integers are the machine's own. Numbers of element types are those of tensor/tensor.h,
 * result codes those of base/err.h; moai holds the two together at compile time.
 *
 * Pure: nothing here does input or output. */
#ifndef TG_NATIVE_PROTOCOL_H
#define TG_NATIVE_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define TG_NATIVE_VERSION 1
#define TG_NATIVE_MAGIC UINT32_C(0x314e4754) /* "TGN1" */
#define TG_NATIVE_PORTS_MAX 64               /* inputs, and as many outputs */
#define TG_NATIVE_DIMS_MAX 16
#define TG_NATIVE_SLOTS_MAX 16
#define TG_NATIVE_FILES_MAX 48 /* in one message */

#define TG_NATIVE_MODEL_TEXT 260 /* with the NUL, as all of these */
#define TG_NATIVE_VERSION_TEXT 132
#define TG_NATIVE_NAME_TEXT 260
#define TG_NATIVE_PATH_TEXT 1032
#define TG_NATIVE_REASON_TEXT 496

#define TG_NATIVE_DTYPE_TEXT 16

enum tg_native_type {
    /* from the client */
    TG_NATIVE_HELLO = 1, /* first, once */
    TG_NATIVE_RING,      /* make a ring; once */
    TG_NATIVE_LIST,      /* which files are there (hand-over) */
    TG_NATIVE_TAKE,      /* a file or a tensor, please (hand-over) */
    /* from the worker */
    TG_NATIVE_WELCOME,   /* to HELLO: what serves */
    TG_NATIVE_RING_MADE, /* to RING: with one descriptor, the shared memory */
    TG_NATIVE_FILES,     /* to LIST */
    TG_NATIVE_TAKEN,     /* to TAKE: with one descriptor, sealed */
    TG_NATIVE_REFUSED    /* to any: code and reason */
};

enum tg_native_side { TG_NATIVE_CLIENT, TG_NATIVE_WORKER };

/* Begins every message. */
struct tg_native_head {
    uint32_t magic;
    uint32_t type; /* enum tg_native_type */
    uint32_t size; /* of the whole message */
    uint32_t zero;
};

struct tg_native_hello {
    struct tg_native_head head;
    uint32_t oldest, newest; /* versions that the client speaks */
};

/* One input or output. A negative dimension takes any size. */
struct tg_native_port {
    char name[TG_NATIVE_NAME_TEXT];
    uint32_t dtype;
    uint32_t n_dims;
    uint32_t zero;
    int64_t dims[TG_NATIVE_DIMS_MAX];
};

enum {
    TG_NATIVE_CAN_RUN = 1, /* calls are answered */
    TG_NATIVE_CAN_TAKE = 2 /* this user may ask for files */
};

struct tg_native_welcome {
    struct tg_native_head head;
    uint32_t version;
    uint32_t flags;
    uint64_t sequence;
    uint8_t h[32]; /* of the package */
    char model[TG_NATIVE_MODEL_TEXT];
    char model_version[TG_NATIVE_VERSION_TEXT];
    uint32_t n_in, n_out;
    struct tg_native_port ports[2 * TG_NATIVE_PORTS_MAX]; /* inputs, then outputs; cut after them */
};

struct tg_native_ring {
    struct tg_native_head head;
    uint32_t slots;                          /* a power of two */
    uint32_t n;                              /* n_in + n_out of the welcome */
    uint64_t bytes[2 * TG_NATIVE_PORTS_MAX]; /* room for each, in every slot; the rest is 0 */
};

struct tg_native_ring_made {
    struct tg_native_head head;
    uint64_t map_size;
};

struct tg_native_list {
    struct tg_native_head head;
    uint32_t from; /* number of the first file */
    uint32_t zero;
};

struct tg_native_file {
    uint64_t size;
    char path[TG_NATIVE_PATH_TEXT];
};

struct tg_native_files {
    struct tg_native_head head;
    uint32_t total, n;
    struct tg_native_file files[TG_NATIVE_FILES_MAX]; /* cut after n */
};

struct tg_native_take {
    struct tg_native_head head;
    char path[TG_NATIVE_PATH_TEXT];
    char tensor[TG_NATIVE_NAME_TEXT]; /* "": the whole file */
};

struct tg_native_taken {
    struct tg_native_head head;
    uint64_t size;
    char dtype[TG_NATIVE_DTYPE_TEXT]; /* as safetensors names it, "F32"; "": a whole file */
    uint32_t n_dims;
    uint32_t zero;
    int64_t dims[TG_NATIVE_DIMS_MAX];
};

struct tg_native_refused {
    struct tg_native_head head;
    uint32_t code; /* enum tg_rc, never TG_OK */
    char reason[TG_NATIVE_REASON_TEXT];
};

union tg_native_msg {
    struct tg_native_head head;
    struct tg_native_hello hello;
    struct tg_native_ring ring;
    struct tg_native_list list;
    struct tg_native_take take;
    struct tg_native_welcome welcome;
    struct tg_native_ring_made made;
    struct tg_native_files files;
    struct tg_native_taken taken;
    struct tg_native_refused refused;
};

/* No message is longer. */
#define TG_NATIVE_MSG_MAX sizeof(union tg_native_msg)

/* Clear *m and begin a message of this type. Fill the rest, then tg_native_seal. */
void tg_native_begin(union tg_native_msg *m, enum tg_native_type type);
/* Set the size, from the counts inside; returns the bytes to send. */
struct tg_bytes tg_native_seal(union tg_native_msg *m);

/* A refusal, from err. */
struct tg_bytes tg_native_refuse(union tg_native_msg *m, const struct tg_err *err);

/* Copy bytes into *out and check all of it: magic, a type that `from` may send, exact size, counts
 * within limits, text that ends, is UTF-8 and has nothing behind its end, no bits where none
 * belong. What is cut off is zero in *out.
 * @retval TG_E_FORMAT */
TG_RC tg_native_parse(struct tg_bytes bytes, enum tg_native_side from, union tg_native_msg *out,
                      struct tg_err *err);

/* The same input or output? */
bool tg_native_port_eq(const struct tg_native_port *a, const struct tg_native_port *b);

/* Put text into a fixed array: cut to fit at a character border, zeros behind it. */
void tg_native_text(char *out, size_t cap, const char *text);

#endif
