/* How a worker ends, and what its end means. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/worker.h"
#include "base/file.h"
#include "base/mem.h"
#include "wire/package.h"

TG_RC tg_worker_grant_keep(struct tg_worker *w, const struct tg_state *s, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int fd = w->grant_fd;
    char path[TG_STATE_PATH_MAX];
    w->grant_fd = -1;
    if (fd < 0)
        return TG_OK;
    uint8_t *text = tg_alloc(TG_WIRE_GRANT_MAX);
    if (!text)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    ssize_t n = pread(fd, text, TG_WIRE_GRANT_MAX, 0); /* a small file: all of it */
    tg_state_grant(s, w->pkg.h, path);
    enum tg_rc rc = TG_E_IO;
    if (n > 0)
        rc = tg_file_write(path, tg_bytes_make(text, (size_t)n), 0600, true, err);
    else
        tg_err_set(err, rc, "worker: its grant cannot be read again");
    tg_free(text);
    TG_TRY(rc);
    /* a kill before this leaves the same grant under both names; one that came in the meantime is
     * offered again */
    tg_state_grant_new(s, w->pkg.h, path);
    return tg_state_remove(path, err);
}

void tg_worker_close(struct tg_worker *w)
{
    tg_fd_close(w->grant_fd);
    w->grant_fd = -1;
    tg_fd_close(w->ctl);
    w->ctl = -1;
}

static void ended(struct tg_worker *w, int status)
{
    w->pid = 0;
    w->deadline_ms = w->ping_ms = 0;
    w->pinged = false;
    if (w->phase == TG_WK_FAILED || w->reason[0])
        return; /* it, or we, said why before */
    char how[64];
    tg_wait_text(status, how, sizeof how);
    char text[TG_REASON_TEXT];
    (void)snprintf(text, sizeof text, "the worker died %s: %s",
                   w->serving
                       ? (w->phase == TG_WK_HEALTHY ? "when it was to serve" : "while it served")
                       : "while it loaded",
                   how);
    TG_TEXT_SET(w->reason, text);
    w->code = TG_E_CLOSED;
}

bool tg_worker_reap(struct tg_worker *w)
{
    if (w->pid <= 0)
        return false;
    int status = 0;
    pid_t got = waitpid(w->pid, &status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR))
        return false;
    ended(w, got == w->pid ? status : 0);
    return true;
}

void tg_worker_kill(struct tg_worker *w)
{
    if (w->pid <= 0)
        return;
    (void)kill(-w->pid, SIGKILL);
    (void)kill(w->pid, SIGKILL);
    int status = 0;
    while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR)
        ;
    ended(w, status);
}

bool tg_worker_failure_of_grant(enum tg_rc rc)
{
    return rc == TG_E_NOTFORKEY || rc == TG_E_AUTH || rc == TG_E_EXPIRED || rc == TG_E_DENIED ||
           rc == TG_E_FORMAT || rc == TG_E_LIMIT || rc == TG_E_UNSUPPORTED;
}

bool tg_worker_failure_final(enum tg_rc rc)
{
    switch (rc) {
    case TG_E_FORMAT:
    case TG_E_AUTH:
    case TG_E_DENIED:
    case TG_E_LIMIT:
    case TG_E_UNSUPPORTED:
    case TG_E_EXPIRED:
    case TG_E_ROLLBACK:
    case TG_E_NOTFORKEY:
    case TG_E_STATE:
    case TG_E_USAGE:
        return true;
    case TG_OK:
    case TG_E_NOMEM:
    case TG_E_IO:
    case TG_E_AGAIN:
    case TG_E_CLOSED:
    case TG_E_TIMEOUT:
    case TG_E_NOTFOUND:
    case TG_E_EXISTS:
    case TG_E_INTERNAL:
    case TG_RC_COUNT:
        return false;
    }
    return false;
}
