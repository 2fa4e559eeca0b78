/* A thread that makes copies for hand-overs, one at a time, so that the loop goes on answering
 * meanwhile. It is made before the sandbox, where threads still may be, and sleeps until it is
 * needed. Everything here is called by the loop's thread. */
#ifndef TG_MOAI_MAKER_H
#define TG_MOAI_MAKER_H

#include <stdbool.h>

#include "moai/copy.h"

struct tg_maker;

/* notify: an eventfd (borrowed) that is written to when there is a result. */
TG_RC tg_maker_new(int notify, struct tg_maker **out, struct tg_err *err);
/* Ends what is under way, wipes it, ends the thread. NULL is fine. */
void tg_maker_free(struct tg_maker *m);
TG_DEFINE_AUTO(struct tg_maker, tg_maker_freep, tg_maker_free);

/* Begin what tg_copy_make does. Only when the result of the one before was taken. The model is
 * borrowed until the result, or _free; *in is copied. */
void tg_maker_begin(struct tg_maker *m, const struct tg_model *model,
                    const struct tg_native_take *in);
/* What is under way is not wanted any more: its result comes soon, TG_E_CLOSED or a copy. */
void tg_maker_stop(struct tg_maker *m);
/* Is there one? Then it is taken: *rc of tg_copy_make, and the copy or the reason. */
bool tg_maker_result(struct tg_maker *m, enum tg_rc *rc, struct tg_copy *out, struct tg_err *err);
/* Bytes of what is under way that lie outside the protected region. */
size_t tg_maker_size(const struct tg_maker *m);

#endif
