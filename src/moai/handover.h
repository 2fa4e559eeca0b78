/* Hand-over: a file of the package, or one tensor of it, as a sealed memfd for an allowed user
 * (docs/spec/native-1.0.md §6). The bytes leave the protected region then: that is what it is for,
 * and why it is off unless the agent's configuration names users, and why each is told to the agent
 * before the descriptor leaves. One copy is made of each file, however often it is handed over:
 * decrypted from the package straight into it, verified before anybody gets it (copy.h), beside the
 * loop (maker.h). */
#ifndef TG_MOAI_HANDOVER_H
#define TG_MOAI_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "moai/load.h"
#include "native/protocol.h"

#define TG_HANDOVER_USERS_MAX 16
#define TG_HANDOVER_BURST 16       /* hand-overs at once, then one a second */
#define TG_HANDOVER_COPIES_MAX 256 /* different files and tensors at a time */
#define TG_HANDOVER_ASKS_MAX 8     /* that are waited for: one is made, the others are not yet */

/* What the agent is told. */
struct tg_handover_note {
    const char *file, *tensor; /* tensor "": the whole file */
    uint64_t size;
    uint32_t uid;
};

struct tg_handover_opts {
    uid_t users[TG_HANDOVER_USERS_MAX]; /* who may ask */
    size_t n_users;                     /* 0: nobody */
    /* Anything but TG_OK keeps the descriptor here. */
    enum tg_rc (*tell)(void *arg, const struct tg_handover_note *note, struct tg_err *err);
    void *arg;
    /* Copies are made by a thread of their own, made by _new: before the sandbox. notify: an
     * eventfd (borrowed) that is written to when to call tg_handover_next. */
    bool beside;
    int notify;
};

struct tg_handover;

/* opts is copied. */
TG_RC tg_handover_new(const struct tg_handover_opts *opts, struct tg_handover **out,
                      struct tg_err *err);
/* Unlocks and drops the copies, ends the thread and wipes what it was making; programs keep what
 * they were handed. NULL is fine. */
void tg_handover_free(struct tg_handover *h);
TG_DEFINE_AUTO(struct tg_handover, tg_handover_freep, tg_handover_free);

/* The model whose files are handed over; borrowed until _free. Before the first _take. */
void tg_handover_model(struct tg_handover *h, const struct tg_model *m);
bool tg_handover_allows(const struct tg_handover *h, uid_t uid);

struct tg_handover_facts {
    uint64_t handed, handed_bytes; /* hand-overs ever, a file as often as it was handed over */
    uint64_t held, held_bytes;     /* copies now; and bytes of what is being made */
};

struct tg_handover_facts tg_handover_facts(const struct tg_handover *h);

/* One copy: what of, and where it lies in this process, outside the protected region. */
struct tg_handover_copy {
    const char *file, *tensor; /* tensor "": the whole file */
    const void *map;           /* NULL: empty */
    size_t size;
};

/* Copy i, in the order in which they were made. Borrowed until _free. false: there are no more. */
bool tg_handover_copy(const struct tg_handover *h, size_t i, struct tg_handover_copy *out);

/* A TAKE. */
struct tg_handover_ask {
    uid_t uid;
    void *who; /* names the client in _next and _cancel; not NULL; one ask each at a time */
    const struct tg_native_take *what;
};

/* Answer a TAKE. out: the message, *fd what goes along: borrowed, valid until _free. TG_OK with
 * *fd -1: it must be made first; tg_handover_next has the answer, or _cancel was called.
 * @retval TG_E_DENIED not this user   @retval TG_E_NOTFOUND no such file or tensor
 * @retval TG_E_AGAIN too many at a time, or TG_HANDOVER_ASKS_MAX are waited for
 * @retval TG_E_NOMEM memory, or none that could be locked  @retval TG_E_LIMIT too many copies
 * @retval TG_E_AUTH, TG_E_FORMAT, TG_E_IO since it was loaded the package's file was changed, or
 * cut, or can't be read any more; that is logged too
 * @retval TG_E_FORMAT, TG_E_UNSUPPORTED a tensor of a file that is none of weights, or not packed
 */
TG_RC tg_handover_take(struct tg_handover *h, const struct tg_handover_ask *ask,
                       union tg_native_msg *out, int *fd, struct tg_err *err);

struct tg_handover_reply {
    void *who;
    enum tg_rc rc; /* as of _take */
    int fd;
    struct tg_err err;
};

/* The next answer that is ready, in the order in which they were asked for; and the next copy is
 * begun. false: none is ready; *r and *out are untouched. */
bool tg_handover_next(struct tg_handover *h, union tg_native_msg *out, struct tg_handover_reply *r);
/* Who asked is gone: what is made for it alone is not told, not kept, and wiped. */
void tg_handover_cancel(struct tg_handover *h, const void *who);
/* Answer a LIST. @retval TG_E_DENIED not this user */
TG_RC tg_handover_list(const struct tg_handover *h, uid_t uid, const struct tg_native_list *in,
                       union tg_native_msg *out, struct tg_err *err);

#endif
