/* Between the parts of libtensorguard. What programs see is tensorguard/tensorguard.h. */
#ifndef TG_CLIENT_CLIENT_INTERNAL_H
#define TG_CLIENT_CLIENT_INTERNAL_H

#include <stdbool.h>

#include "base/err.h"
#include "native/layout.h"
#include <tensorguard/tensorguard.h>

/* One connection to one worker. It lives as long as the model is on it or a call lies in its
 * memory. */
struct tg_link {
    int sock;
    struct tg_native_layout layout;
    uint8_t *map;
    struct tg_native_shared *shared; /* the start of map; NULL: no ring yet */
    uint32_t begun;                  /* calls that got a slot */
    uint32_t submitted;
    uint32_t holders; /* the model, and its calls */
    bool dead;        /* hung up */
};

enum tg_call_state { TG_CALL_FREE, TG_CALL_OPEN, TG_CALL_SUBMITTED, TG_CALL_DONE, TG_CALL_FAILED };

struct tg_call {
    struct tg_model *model;
    struct tg_link *link;
    uint32_t number; /* of the link's calls */
    enum tg_call_state state;
    bool ended; /* by its owner, while the worker still had it: its slot is not free yet */
    /* Begun on a link that died: its owner still writes there; copied when it is handed in. */
    struct tg_link *source;
    uint32_t source_number;
};

/* Towards the next worker, a step at a time while the old one still answers. */
enum tg_move { TG_MOVE_NONE, TG_MOVE_GREETED, TG_MOVE_RING };

struct tg_model {
    char path[108];
    struct tg_options o;
    struct tg_link *link;
    struct tg_link *next; /* being made ready; NULL: none */
    enum tg_move move;
    struct tg_native_welcome now; /* what the present worker said */
    struct tg_native_ring room;   /* what is asked of every worker */
    struct tg_tensor tensors[2 * TG_NATIVE_PORTS_MAX];
    struct tg_call calls[2 * TG_NATIVE_SLOTS_MAX]; /* some may lie in an older link */
    union tg_native_msg msg, request;
};

/* error.c: from ours to the caller's words; returns the status. */
enum tg_status tg_error_out(const struct tg_err *from, struct tg_error *to);
enum tg_status tg_error_say(struct tg_error *to, enum tg_status s, const char *text);

/* link.c */
TG_RC tg_link_open(const char *path, struct tg_link **out, struct tg_err *err);
void tg_link_drop(struct tg_link *l); /* one holder less */
TG_DEFINE_AUTO(struct tg_link, tg_link_dropp, tg_link_drop);
/* Send *m (sealed here); then an answer of `want` into *m, or what was refused. wait_ns 0: only
 * what is there (TG_E_AGAIN). fd: as tg_channel_recv. */
TG_RC tg_link_send(struct tg_link *l, union tg_native_msg *m, struct tg_err *err);
TG_RC tg_link_receive(struct tg_link *l, enum tg_native_type want, uint64_t wait_ns,
                      union tg_native_msg *m, int *fd, struct tg_err *err);
/* Map the ring that came with a RING_MADE. Takes fd. */
TG_RC tg_link_map(struct tg_link *l, const struct tg_options *o, uint64_t size, int fd,
                  struct tg_err *err);
/* Look whether the worker hung up. */
bool tg_link_alive(struct tg_link *l);

/* model.c */
/* Ask for what every worker is asked for; ready when the ring is mapped. */
TG_RC tg_model_ask_ring(struct tg_model *m, struct tg_link *l, struct tg_err *err);

/* move.c */
/* Make m->link one on which a call can be begun: the present one, or the next where that leaves or
 * is dead (then it waits for one, at most options.reconnect_ns).
 * @retval TG_E_CLOSED no worker  @retval TG_E_EXPIRED the model has other tensors now */
TG_RC tg_model_settle(struct tg_model *m, struct tg_err *err);

/* call.c */
/* Give c the next number on its model's link, its inputs still to be copied from where they were.
 */
void tg_call_renumber(struct tg_call *c);
/* Hand it in on its present link. */
void tg_call_publish(struct tg_call *c);
/* Is the answer there? */
bool tg_call_answered(const struct tg_call *c);

#endif
