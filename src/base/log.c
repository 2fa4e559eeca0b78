#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

static _Atomic int log_level = TG_LOG_INFO;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void tg_log_level_set(enum tg_log_level level)
{
    atomic_store(&log_level, (int)level);
}

enum tg_rc tg_log_level_parse(const char *s, enum tg_log_level *out)
{
    for (int i = 0; i < 4; i++) {
        if (strcmp(s, level_names[i]) == 0) {
            *out = (enum tg_log_level)i;
            return TG_OK;
        }
    }
    return TG_E_USAGE;
}

/* One write per line, so lines of several threads and processes do not mix. */
static void emit(char *line, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7F)
            line[i] = '?';
    line[n] = '\n';
    if (write(STDERR_FILENO, line, n + 1) < 0)
        return; /* nowhere to say it */
}

void tg_log(enum tg_log_level level, const char *event, const char *fmt, ...)
{
    char line[2048], when[TG_TIME_TEXT];
    int64_t ms = tg_clock_now_ms();
    va_list ap;
    size_t used;
    int n;

    if ((int)level > atomic_load(&log_level))
        return;
    if (tg_time_format(ms / 1000, when) != TG_OK)
        when[0] = '\0';
    n = snprintf(line, sizeof(line) - 1, "%.19s.%03dZ %-5s %s ", when, (int)(ms % 1000),
                 level_names[level], event);
    if (n < 0)
        return;
    used = (size_t)n < sizeof(line) - 1 ? (size_t)n : sizeof(line) - 2;
    va_start(ap, fmt);
    n = vsnprintf(line + used, sizeof(line) - 1 - used, fmt, ap);
    va_end(ap);
    if (n > 0)
        used += (size_t)n < sizeof(line) - 1 - used ? (size_t)n : sizeof(line) - 2 - used;
    emit(line, used);
}

void tg_log_line(struct tg_bytes text, const char *mark)
{
    char line[2048];
    size_t room = sizeof(line) - 1 - strlen(mark);
    size_t n = text.n < room ? text.n : room;

    memcpy(line, text.p, n);
    memcpy(line + n, mark, strlen(mark));
    emit(line, n + strlen(mark));
}

void tg_log_err(const char *event, const struct tg_err *err)
{
    tg_log(TG_LOG_ERROR, event, "rc=%s msg=\"%s\"", tg_rc_name(err->rc), err->msg);
}
