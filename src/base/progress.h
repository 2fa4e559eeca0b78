/* A progress bar on stderr, only when it is a terminal and the work lasts over a second. */
#ifndef TG_BASE_PROGRESS_H
#define TG_BASE_PROGRESS_H

#include <stdint.h>

struct tg_progress;

/* label is borrowed. total in bytes. NULL when memory is out or stderr is no terminal: every
 * function takes NULL. Thread-safe. */
struct tg_progress *tg_progress_new(const char *label, uint64_t total);
/* The same over things: "granting … 12 of 300". */
struct tg_progress *tg_progress_new_count(const char *label, uint64_t total);
/* A line without a bar, drawn at once, while something goes on that cannot be measured here. */
struct tg_progress *tg_progress_new_wait(const char *what);
void tg_progress_add(struct tg_progress *p, uint64_t n);
void tg_progress_free(struct tg_progress *p); /* clears the line */

#endif
