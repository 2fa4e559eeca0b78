#include "net/http_server_internal.h"

#include <inttypes.h>

#include "base/mem.h"
#include "net/http_guard.h"

/* Given to evhttp in place of a request that was refused, so that the refusal is answered in turn,
 * after the answers to what came before it. */
static const char stand_in[] = "GET / HTTP/1.1\r\nHost: refused\r\n\r\n";

#define LINGER_BYTES (UINT64_C(64) << 20)
#define PIPELINE_MAX 32
#define BACKLOG_MAX 131072
#define BODY_IN_PIECES 65536
#define ZEROS 16384

/* The rest of a body that does not come: evhttp gets its bytes, nobody else ever sees them. */
static bool pad(struct evbuffer *input, uint64_t n)
{
    static const uint8_t zeros[ZEROS];

    for (; n > ZEROS; n -= ZEROS)
        if (evbuffer_add_reference(input, zeros, ZEROS, NULL, NULL) != 0)
            return false;
    return evbuffer_add_reference(input, zeros, (size_t)n, NULL, NULL) == 0;
}

static void refuse(struct tg_http_conn *c, struct evbuffer *input, unsigned status,
                   const struct tg_err *err)
{
    uint64_t owed = c->body_left;
    bool ok;

    c->refusal = tg_calloc(1, sizeof(*c->refusal));
    if (c->refusal == NULL) {
        tg_http_conn_doom(c);
        return;
    }
    c->refusal->status = status;
    c->refusal->err = *err;
    c->refusal->at = owed > 0 ? c->fed - 1 : c->fed++; /* the request whose body it is, or a new */
    c->discarded = evbuffer_get_length(c->hold);
    evbuffer_drain(c->hold, evbuffer_get_length(c->hold));
    c->head_since = c->body_since = c->body_left = 0;
    ok = owed > 0 ? pad(input, owed) : evbuffer_add(input, stand_in, sizeof(stand_in) - 1) == 0;
    if (!ok)
        tg_http_conn_doom(c);
}

static void refuse_text(struct tg_http_conn *c, struct evbuffer *input, unsigned status,
                        const char *why)
{
    struct tg_err err = TG_ERR_INIT;

    tg_err_set(&err, tg_http_status_rc(status), "%s", why);
    refuse(c, input, status, &err);
}

/* May this request bring that body? 0: yes. */
static unsigned body_check(struct tg_http_conn *c, const struct tg_http_head *head,
                           struct tg_err *err)
{
    const struct tg_http_server_opts *o = &c->server->opts;
    struct tg_http_target target = TG_HTTP_TARGET_INIT;
    uint64_t max = o->max_body;

    if (head->body == 0)
        return 0;
    if (o->limit != NULL) {
        enum tg_rc rc = tg_http_target_parse(head->target, &target, err);
        uint64_t at_most;

        if (rc != TG_OK)
            return (unsigned)tg_rc_http(rc);
        at_most = o->limit(o->arg, head->method, target.path, c->listener->arg);
        tg_http_target_done(&target);
        max = at_most < max ? at_most : max;
    }
    if (head->body <= max)
        return 0;
    tg_err_set(err, TG_E_LIMIT, "body: %" PRIu64 " bytes, at most %" PRIu64 " are taken here",
               head->body, max);
    return 413;
}

/* Length of the head at the front of hold with its empty line; 0: not there yet. */
static size_t head_end(struct tg_http_conn *c)
{
    size_t n = evbuffer_get_length(c->hold);
    struct evbuffer_ptr from, at;

    if (evbuffer_ptr_set(c->hold, &from, c->scanned, EVBUFFER_PTR_SET) != 0)
        return 0;
    at = evbuffer_search(c->hold, "\r\n\r\n", 4, &from);
    if (at.pos >= 0)
        return (size_t)at.pos + 4;
    c->scanned = n > 3 ? n - 3 : 0;
    return 0;
}

/* Let one whole head and what is there of its body through. False: nothing more to do for now. */
static bool pass_one(struct tg_http_conn *c, struct evbuffer *input)
{
    const struct tg_http_server_opts *o = &c->server->opts;
    struct tg_err err = TG_ERR_INIT;
    struct tg_http_head head;
    const char *why = NULL;
    size_t n = head_end(c), have;
    unsigned status;

    if ((n == 0 ? evbuffer_get_length(c->hold) : n) > o->max_head) {
        refuse_text(c, input, 431, "the request's head is too long");
        return false;
    }
    if (n == 0)
        return false;
    status = tg_http_guard_check(tg_bytes_make(evbuffer_pullup(c->hold, (ev_ssize_t)n), n),
                                 o->max_headers, &head, &why);
    if (status != 0) {
        refuse_text(c, input, status, why);
        return false;
    }
    status = body_check(c, &head, &err);
    if (status != 0) {
        refuse(c, input, status, &err);
        return false;
    }
    c->scanned = 0;
    c->fed++;
    have = evbuffer_get_length(c->hold) - n;
    if (have > head.body)
        have = (size_t)head.body;
    c->body_left = head.body - have;
    c->body_got = have;
    c->body_since = c->body_left > 0 ? tg_http_ms() : 0;
    if (evbuffer_remove_buffer(c->hold, input, n + have) != (int)(n + have) ||
        /* One piece for the whole body, else it is copied together once it is there. */
        (c->body_left > BODY_IN_PIECES && evbuffer_expand(input, (size_t)c->body_left) != 0)) {
        tg_http_conn_doom(c);
        return false;
    }
    return c->body_left == 0 && evbuffer_get_length(c->hold) > 0;
}

/* The last `fresh` bytes of input are new; what stands before them went through earlier. */
static bool take_fresh(struct tg_http_conn *c, struct evbuffer *input, size_t fresh)
{
    size_t keep = evbuffer_get_length(input) - fresh;
    struct evbuffer *kept;
    bool ok;

    if (keep == 0)
        return evbuffer_add_buffer(c->hold, input) == 0;
    kept = evbuffer_new();
    if (kept == NULL)
        return false;
    ok = evbuffer_remove_buffer(input, kept, keep) == (int)keep &&
         evbuffer_add_buffer(c->hold, input) == 0 && evbuffer_add_buffer(input, kept) == 0;
    evbuffer_free(kept);
    return ok;
}

static void feed(struct tg_http_conn *c, struct evbuffer *input, size_t fresh)
{
    if (c->refusal == NULL && c->body_left > 0) {
        size_t n = fresh < c->body_left ? fresh : (size_t)c->body_left;

        c->body_left -= n;
        c->body_got += n;
        fresh -= n;
        if (c->body_left == 0)
            c->body_since = 0;
    }
    if (fresh == 0)
        return;
    if (!take_fresh(c, input, fresh)) {
        tg_http_conn_doom(c);
        return;
    }
    if (c->refusal != NULL || c->doomed) {
        c->discarded += evbuffer_get_length(c->hold);
        evbuffer_drain(c->hold, evbuffer_get_length(c->hold));
        if (c->discarded > LINGER_BYTES)
            tg_http_conn_doom(c);
        return;
    }
    if (c->head_since == 0)
        c->head_since = tg_http_ms();
    while (pass_one(c, input))
        continue;
    if (evbuffer_get_length(c->hold) == 0)
        c->head_since = 0;
    if (c->fed - c->served > PIPELINE_MAX || (c->busy && evbuffer_get_length(input) > BACKLOG_MAX))
        tg_http_conn_doom(c);
}

bool tg_http_conn_late(struct tg_http_conn *c)
{
    const struct tg_http_server_opts *o = &c->server->opts;
    struct evbuffer *input = bufferevent_get_input(c->bev);
    struct tg_err err = TG_ERR_INIT;

    if (c->refusal != NULL || c->busy || (c->head_since == 0 && c->body_since == 0))
        return false;
    if (c->body_since != 0)
        tg_err_set(&err, TG_E_TIMEOUT,
                   "the body comes too slowly: %" PRIu64 " of %" PRIu64
                   " bytes came; send at least %" PRIu32 " bytes/s",
                   c->body_got, c->body_got + c->body_left, o->body_min_rate);
    else
        tg_err_set(&err, TG_E_TIMEOUT,
                   "the head comes too slowly: send all of it within %" PRIu32 " ms",
                   o->head_timeout_ms);
    c->inside = true;
    (void)evbuffer_unfreeze(input, 0); /* a transport lets in what comes from its socket only */
    refuse(c, input, 408, &err);
    c->inside = false;
    if (!c->doomed)
        bufferevent_trigger(c->bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS);
    return true;
}

void tg_http_conn_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
    struct tg_http_conn *c = arg;

    if (c->inside || info->n_added == 0)
        return;
    c->inside = true;
    feed(c, input, info->n_added);
    c->inside = false;
}
