/* What a worker writes to its standard error, passed on line by line into the agent's log.
 *
 * Whoever owns a worker must not be able to fill the device's disk, to end the agent's log, or to
 * write into it in the agent's name: a line is bounded and printable, ends with " worker=PID"
 * whatever stood in it, and there are only so many of them. */
#ifndef TG_AGENT_WORDS_H
#define TG_AGENT_WORDS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/err.h"

#define TG_WORDS_LINE 1024 /* bytes of a line that are kept */
/* So many lines at once, and then one more each TG_WORDS_EACH_MS: a worker that starts writes about
 * ten, one that serves hardly any. */
#define TG_WORDS_BURST 128
#define TG_WORDS_EACH_MS 200
/* What was dropped is told with the next line that is not, or when nothing came for so long. */
#define TG_WORDS_QUIET_MS 1000

struct tg_words {
    int fd; /* what the worker writes to, our end; -1: closed */
    pid_t pid;
    char line[TG_WORDS_LINE];
    size_t n;
    bool cut;          /* the line is longer: what comes until its end is passed over */
    uint64_t heard_ms; /* when the allowance was counted last */
    unsigned allowance;
    uint64_t dropped;    /* lines, not told yet */
    uint64_t dropped_ms; /* when the last of them came */
};

#define TG_WORDS_INIT ((struct tg_words){.fd = -1})

/* Make the pipe. *theirs, the caller's to close, becomes the worker's stderr: it never waits there,
 * what does not fit is lost. */
TG_RC tg_words_open(struct tg_words *w, int *theirs, uint64_t now_ms, struct tg_err *err);

/* Pass on what waits. Never blocks, and takes only so much at a time.
 * @retval TG_E_AGAIN there may be more later   @retval TG_E_CLOSED the worker has closed it */
TG_RC tg_words_read(struct tg_words *w, uint64_t now_ms);

/* The same for bytes wherever they came from. */
void tg_words_take(struct tg_words *w, struct tg_bytes text, uint64_t now_ms);

/* When tg_words_tell has something to tell, in ms; 0: never, as things are. */
uint64_t tg_words_due(const struct tg_words *w);

/* Say how many lines were dropped, if that is due by now. */
void tg_words_tell(struct tg_words *w, uint64_t now_ms);

/* Pass on its last words, and close. */
void tg_words_end(struct tg_words *w, uint64_t now_ms);

#endif
