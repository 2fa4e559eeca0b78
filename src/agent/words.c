#include "agent/words.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

#define READ_MAX 16384 /* in one turn of the loop */

TG_RC tg_words_open(struct tg_words *w, int *theirs, uint64_t now_ms, struct tg_err *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "worker: a pipe for its log lines");
    *w = (struct tg_words){.fd = ends[0], .heard_ms = now_ms, .allowance = TG_WORDS_BURST};
    *theirs = ends[1];
    return TG_OK;
}

static void allow(struct tg_words *w, uint64_t now_ms)
{
    uint64_t more = now_ms > w->heard_ms ? (now_ms - w->heard_ms) / TG_WORDS_EACH_MS : 0;
    if (more >= TG_WORDS_BURST - w->allowance) {
        w->allowance = TG_WORDS_BURST;
        w->heard_ms = now_ms;
    } else {
        w->allowance += (unsigned)more;
        w->heard_ms += more * TG_WORDS_EACH_MS;
    }
}

static void tell_dropped(struct tg_words *w)
{
    if (w->dropped > 0)
        tg_log(TG_LOG_WARN, "agent.worker", "pid=%d log_lines_dropped=%" PRIu64, (int)w->pid,
               w->dropped);
    w->dropped = 0;
}

static void end_line(struct tg_words *w, uint64_t now_ms)
{
    char mark[32];
    allow(w, now_ms);
    if (w->n > 0 && w->allowance == 0) {
        w->dropped++;
        w->dropped_ms = now_ms;
    } else if (w->n > 0) {
        w->allowance--;
        tell_dropped(w);
        (void)snprintf(mark, sizeof mark, "%s worker=%d", w->cut ? "..." : "", (int)w->pid);
        tg_log_line(tg_bytes_make((const uint8_t *)w->line, w->n), mark);
    }
    w->n = 0;
    w->cut = false;
}

void tg_words_take(struct tg_words *w, struct tg_bytes text, uint64_t now_ms)
{
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\n')
            end_line(w, now_ms);
        else if (w->n < sizeof w->line)
            w->line[w->n++] = (char)text.p[i];
        else
            w->cut = true;
    }
}

TG_RC tg_words_read(struct tg_words *w, uint64_t now_ms)
{
    uint8_t buf[READ_MAX];
    if (w->fd < 0)
        return TG_E_CLOSED;
    ssize_t n = read(w->fd, buf, sizeof buf);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return TG_E_AGAIN;
    if (n <= 0)
        return TG_E_CLOSED;
    tg_words_take(w, tg_bytes_make(buf, (size_t)n), now_ms);
    return TG_E_AGAIN;
}

uint64_t tg_words_due(const struct tg_words *w)
{
    return w->dropped > 0 ? w->dropped_ms + TG_WORDS_QUIET_MS : 0;
}

void tg_words_tell(struct tg_words *w, uint64_t now_ms)
{
    if (now_ms >= tg_words_due(w))
        tell_dropped(w);
}

/* A pipe holds 64 KiB: what a worker that goes on writing adds meanwhile is not waited for. */
void tg_words_end(struct tg_words *w, uint64_t now_ms)
{
    for (size_t got = 0; w->fd >= 0 && got < 2 * 65536; got += READ_MAX)
        if (tg_words_read(w, now_ms) == TG_E_CLOSED)
            break;
    end_line(w, now_ms);
    tell_dropped(w);
    tg_fd_close(w->fd);
    *w = TG_WORDS_INIT;
}
