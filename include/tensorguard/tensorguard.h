/* libtensorguard: use a model that TensorGuard runs on this machine, from C or C++.
 *
 *   - Calls through shared memory, for control loops: inputs are written in place, no byte is
 *     copied through a socket, and no system call is made where the worker spins.
 *   - Hand-over: an allowed user gets a file of the running package as a sealed, read-only memfd.
 *
 *     struct tg_model *m;
 *     struct tg_call *c;
 *     struct tg_error e;
 *
 *     if (tg_model_connect("/run/tensorguard/predict.sock.native", NULL, &m, &e) != TG_STATUS_OK)
 *         errx(1, "%s", e.text);
 *     if (tg_call_begin(m, &c, &e) == TG_STATUS_OK) {
 *         memcpy(tg_call_input(c, 0), image, tg_model_input(m, 0)->bytes);
 *         if (tg_call_run(c, 1000000000, &e) == TG_STATUS_OK)
 *             use(tg_call_output(c, 0, NULL));
 *         tg_call_end(c);
 *     }
 *     tg_model_close(m);
 *
 * When a new version of the model takes over (the old worker drains), or a worker dies, the library
 * moves to the new one by itself: no call fails, and a call that was under way is made again. Where
 * the new version has other inputs or outputs, calls fail with TG_STATUS_CHANGED: connect anew.
 *
 * Threads: a model and its calls may be used by one thread at a time; different models by different
 * threads at the same time. The library keeps no global state, starts no thread, installs no signal
 * handler, writes nothing to any stream and never ends the process. Its descriptors are
 * close-on-exec. After fork() only the parent may go on using a model.
 *
 * Errors: every function that can fail returns enum tg_status and, where `err` is not NULL, words
 * for people. Outputs are untouched on failure. */
#ifndef TENSORGUARD_TENSORGUARD_H
#define TENSORGUARD_TENSORGUARD_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if defined(__GNUC__)
#define TG_API __attribute__((visibility("default")))
#define TG_CHECKED __attribute__((visibility("default"), warn_unused_result))
#else
#define TG_API
#define TG_CHECKED
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Numbers stay what they are within a major version. */
enum tg_status {
    TG_STATUS_OK = 0,
    TG_STATUS_NOMEM = 1,        /* out of memory, or memory could not be locked */
    TG_STATUS_IO = 2,           /* the system failed, or nobody listens at the socket */
    TG_STATUS_AGAIN = 3,        /* not now: every slot is in use */
    TG_STATUS_CLOSED = 4,       /* the worker is gone and no other took over in time */
    TG_STATUS_TIMEOUT = 5,      /* no answer yet; the call is still under way */
    TG_STATUS_FORMAT = 6,       /* what came is not the protocol */
    TG_STATUS_DENIED = 7,       /* this user may not */
    TG_STATUS_NOTFOUND = 8,     /* no such file or tensor */
    TG_STATUS_LIMIT = 9,        /* over a limit */
    TG_STATUS_UNSUPPORTED = 10, /* the worker or the model can't do that */
    TG_STATUS_STATE = 11,       /* not in this state, or not in this order */
    TG_STATUS_USAGE = 12,       /* a wrong argument, a wrong shape */
    TG_STATUS_CHANGED = 13,     /* the model that serves now has other inputs or outputs */
    TG_STATUS_INTERNAL = 14     /* the model failed on this input, or a bug */
};

#define TG_ERROR_TEXT 512

struct tg_error {
    enum tg_status status;
    char text[TG_ERROR_TEXT];
};

/* "TIMEOUT"; never NULL. */
TG_API const char *tg_status_name(enum tg_status s);
/* Of the library: "0.1.0". */
TG_API const char *tg_library_version(void);

/* ---- a model ---- */

enum tg_type {
    TG_TYPE_BOOL = 0, /* bytes that are 0 or 1 */
    TG_TYPE_UINT8 = 1,
    TG_TYPE_UINT16 = 2,
    TG_TYPE_UINT32 = 3,
    TG_TYPE_UINT64 = 4,
    TG_TYPE_INT8 = 5,
    TG_TYPE_INT16 = 6,
    TG_TYPE_INT32 = 7,
    TG_TYPE_INT64 = 8,
    TG_TYPE_FP16 = 9,
    TG_TYPE_FP32 = 10,
    TG_TYPE_FP64 = 11,
    TG_TYPE_BYTES = 12 /* strings: not through shared memory */
};

#define TG_TENSOR_DIMS_MAX 16

/* One input or output as the model declares it. */
struct tg_tensor {
    const char *name;
    enum tg_type type;
    size_t n_dims;
    int64_t dims[TG_TENSOR_DIMS_MAX]; /* -1: any size */
    size_t bytes;                     /* room for it in every call */
};

struct tg_model_info {
    const char *name, *version; /* "" when it has none */
    uint64_t sequence;
    const uint8_t *package; /* 32 bytes: H, the package's name for machines */
    int can_run, can_take;  /* calls; hand-over to this user */
};

struct tg_options {
    size_t size; /* sizeof(struct tg_options): which members the caller knows */
    /* How many calls can be under way at once: 1, 2, 4, 8 or 16. 0: 1. */
    uint32_t slots;
    /* Room in bytes for tensors whose size the model leaves open. 0: 1 MiB. */
    size_t open_bytes;
    /* How long a waiting call looks for its answer before it sleeps. 0: it sleeps at once. */
    uint64_t spin_ns;
    /* How long to look for a worker when there is none (a restart): 0: 5 s. */
    uint64_t reconnect_ns;
    /* Don't lock the shared memory in place (it then may be swapped). */
    int no_lock;
};

#define TG_OPTIONS_INIT                                                                            \
    {                                                                                              \
        sizeof(struct tg_options), 0, 0, 0, 0, 0                                                   \
    }

struct tg_model;

/* Connect to the worker behind the native socket at path. options: NULL for the defaults; copied.
 * @retval TG_STATUS_IO nobody listens there, or this user may not */
TG_CHECKED enum tg_status tg_model_connect(const char *path, const struct tg_options *options,
                                           struct tg_model **out, struct tg_error *err);
/* Ends it with all its calls. NULL is fine. */
TG_API void tg_model_close(struct tg_model *m);

/* What serves now. Borrowed: valid until the next tg_call_begin, tg_call_submit or tg_call_wait. */
TG_API struct tg_model_info tg_model_info(const struct tg_model *m);
TG_API size_t tg_model_inputs(const struct tg_model *m);
TG_API size_t tg_model_outputs(const struct tg_model *m);
/* NULL when i is out of range. Borrowed, valid until tg_model_close. */
TG_API const struct tg_tensor *tg_model_input(const struct tg_model *m, size_t i);
TG_API const struct tg_tensor *tg_model_output(const struct tg_model *m, size_t i);

/* ---- calls ---- */

struct tg_call;

/* Take a slot. Its pointers are valid until tg_call_end. Inputs hold what an earlier call left
 * there; shapes are as the model declares them, open dimensions 1 until tg_call_shape.
 * @retval TG_STATUS_AGAIN   all slots are in use: end a call first
 * @retval TG_STATUS_CLOSED  no worker  @retval TG_STATUS_CHANGED  @retval TG_STATUS_UNSUPPORTED */
TG_CHECKED enum tg_status tg_call_begin(struct tg_model *m, struct tg_call **out,
                                        struct tg_error *err);
/* Where input i is to be written, packed, row-major, aligned to 64 bytes; its room is
 * tg_model_input(m, i)->bytes. NULL when i is out of range. After tg_call_submit the worker may
 * read it at any time until the answer is there. */
TG_API void *tg_call_input(struct tg_call *c, size_t i);
/* The shape of input i in this call.
 * @retval TG_STATUS_USAGE not what the model declares, or more than there is room for */
TG_CHECKED enum tg_status tg_call_shape(struct tg_call *c, size_t i, const int64_t *dims,
                                        size_t n_dims, struct tg_error *err);
/* Hand it in. Calls are handed in in the order in which they were begun, and answered in that
 * order.
 * @retval TG_STATUS_STATE an earlier call was not handed in yet, or this one was before */
TG_CHECKED enum tg_status tg_call_submit(struct tg_call *c, struct tg_error *err);
/* Wait for its answer, at most timeout_ns nanoseconds.
 * @retval TG_STATUS_TIMEOUT  still under way: wait again, or end it
 * @retval TG_STATUS_USAGE    the worker refused the call; the text says which input and why
 * @retval TG_STATUS_LIMIT    an output is larger than its room
 * @retval TG_STATUS_INTERNAL the model failed on this input */
TG_CHECKED enum tg_status tg_call_wait(struct tg_call *c, uint64_t timeout_ns,
                                       struct tg_error *err);
/* Both in one. */
TG_CHECKED enum tg_status tg_call_run(struct tg_call *c, uint64_t timeout_ns, struct tg_error *err);
/* After a wait that was TG_STATUS_OK: output i, its size in *bytes and its shape in
 * *n_dims and dims (any may be NULL). NULL when i is out of range or there is no answer. */
TG_API const void *tg_call_output(const struct tg_call *c, size_t i, size_t *bytes);
TG_API size_t tg_call_output_shape(const struct tg_call *c, size_t i,
                                   int64_t dims[TG_TENSOR_DIMS_MAX]);
/* Give the slot back. A call under way is abandoned. NULL is fine. */
TG_API void tg_call_end(struct tg_call *c);

/* ---- hand-over ---- */

/* One file of the running package: number i, in the order of its manifest. path: cap bytes, 1025
 * are always enough. size and path may be NULL.
 * @retval TG_STATUS_NOTFOUND i is beyond the last   @retval TG_STATUS_DENIED */
TG_CHECKED enum tg_status tg_model_file(struct tg_model *m, size_t i, char *path, size_t cap,
                                        uint64_t *size, struct tg_error *err);

/* A file of the running package as a descriptor: a memfd that nobody can write, grow or shrink
 * (F_SEAL_WRITE and the others), read-only, at offset 0, close-on-exec, the caller's to close. Map
 * it, or give /proc/self/fd/N to a library that wants a path. The worker keeps it locked in memory
 * as long as it serves; map it and mlock it to keep it so longer. Every hand-over is reported and
 * audited; after 16 in a row they go one a second, and 8 are waited for at most (TG_STATUS_AGAIN
 * after options.reconnect_ns). The first time, it returns when the file is decrypted and verified:
 * a loop that must go on calling meanwhile does that through a model of its own.
 * @retval TG_STATUS_DENIED   the agent's configuration does not name this user
 * @retval TG_STATUS_NOTFOUND the package has no such file */
TG_CHECKED enum tg_status tg_model_open_file(struct tg_model *m, const char *path, int *fd,
                                             struct tg_error *err);
/* The same as a stream for reading; fclose it. */
TG_CHECKED enum tg_status tg_model_fopen(struct tg_model *m, const char *path, FILE **out,
                                         struct tg_error *err);

/* One tensor as a file of weights describes it. */
struct tg_weight_info {
    char type[16]; /* as safetensors names it: "F32", "BF16", "I64" */
    size_t n_dims;
    int64_t dims[TG_TENSOR_DIMS_MAX];
    uint64_t bytes;
};

/* One tensor of a safetensors file or a PyTorch archive: a descriptor on its packed little-endian
 * bytes alone. info may be NULL.
 * @retval TG_STATUS_FORMAT      the file is no file of weights
 * @retval TG_STATUS_UNSUPPORTED the tensor is not packed in it: take the file */
TG_CHECKED enum tg_status tg_model_open_tensor(struct tg_model *m, const char *path,
                                               const char *name, int *fd,
                                               struct tg_weight_info *info, struct tg_error *err);

#ifdef __cplusplus
}
#endif

#endif
