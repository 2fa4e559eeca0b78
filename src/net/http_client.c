#include "net/http_client.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "net/tls_internal.h"

#define DEFAULT_CONNECT_MS 10000
#define DEFAULT_STALL_S 30
#define DEFAULT_MAX_BODY 1048576
#define HEADERS_MAX 65536

struct tg_http_client {
    CURL *curl;
    char *base_url, *where; /* where: for error texts */
    char *bearer;           /* the whole header line */
    char detail[CURL_ERROR_SIZE];
};

/* One call in flight. */
struct call {
    const struct tg_http_call *in;
    struct tg_http_answer *out;
    struct tg_err *err;
    enum tg_rc rc; /* why a callback stopped the transfer */
    size_t header_bytes;
};

/* --- set-up ---------------------------------------------------------------------------------- */

static bool visible(const char *s)
{
    for (; *s != '\0'; s++)
        if (*s < 0x21 || *s > 0x7e)
            return false;
    return true;
}

static bool url_ok(const char *url, bool *https)
{
    const char *host;

    if (url == NULL || strlen(url) > 1024 || !visible(url))
        return false;
    *https = strncmp(url, "https://", 8) == 0;
    if (!*https && strncmp(url, "http://", 7) != 0)
        return false;
    host = url + (*https ? 8 : 7);
    return *host != '\0' && strpbrk(host, "/?#@") == NULL;
}

/* This machine by a name that nothing resolves to another: what goes there crosses no wire. */
static bool loopback(const char *host)
{
    size_t n = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");

    if (strncmp(host, "127.", 4) == 0)
        return strspn(host, "0123456789.") == n;
    return (n == 5 && strncmp(host, "[::1]", n) == 0) ||
           (n == 9 && strncmp(host, "localhost", n) == 0);
}

/* Tokens and predictions must not cross a wire in the clear; and who names a CA wants TLS. */
static bool plain_ok(const struct tg_http_client_opts *o)
{
    if (o->ca_pem.n > 0 || o->ca_file != NULL || o->cert_pem.n > 0 || o->cert_file != NULL)
        return false;
    return o->unix_socket != NULL || loopback(o->base_url + 7);
}

static CURLcode blob_set(CURL *curl, CURLoption option, struct tg_bytes b)
{
    /* CURL_BLOB_COPY: libcurl keeps its own copy and doesn't write to ours. */
    struct curl_blob blob = {.data = (void *)(uintptr_t)b.p, .len = b.n, .flags = CURL_BLOB_COPY};

    return curl_easy_setopt(curl, option, &blob);
}

static CURLcode trust_set(CURL *curl, const struct tg_http_client_opts *o)
{
    CURLcode rc;

    if (o->system_ca && o->ca_pem.n == 0 && o->ca_file == NULL)
        return CURLE_OK;
    rc = curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(curl, CURLOPT_CAINFO, o->ca_pem.n > 0 ? NULL : o->ca_file);
    if (rc == CURLE_OK && o->ca_pem.n > 0)
        rc = blob_set(curl, CURLOPT_CAINFO_BLOB, o->ca_pem);
    return rc;
}

static CURLcode identity_set(CURL *curl, const struct tg_http_client_opts *o)
{
    CURLcode rc = CURLE_OK;

    if (o->cert_pem.n > 0) {
        rc = blob_set(curl, CURLOPT_SSLCERT_BLOB, o->cert_pem);
        return rc == CURLE_OK ? blob_set(curl, CURLOPT_SSLKEY_BLOB, o->key_pem) : rc;
    }
    if (o->cert_file != NULL) {
        rc = curl_easy_setopt(curl, CURLOPT_SSLCERT, o->cert_file);
        return rc == CURLE_OK ? curl_easy_setopt(curl, CURLOPT_SSLKEY, o->key_file) : rc;
    }
    return rc;
}

static CURLcode tls_set(CURL *curl, const struct tg_http_client_opts *o)
{
    const long version = CURL_SSLVERSION_TLSv1_3 | CURL_SSLVERSION_MAX_TLSv1_3;
    CURLcode rc = curl_easy_setopt(curl, CURLOPT_SSLVERSION, version);

    if (rc == CURLE_OK)
        rc = curl_easy_setopt(curl, CURLOPT_TLS13_CIPHERS, TG_TLS_SUITES);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(curl, CURLOPT_SSL_EC_CURVES, TG_TLS_CLIENT_GROUPS);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(curl, CURLOPT_SSL_SESSIONID_CACHE, 0L);
    if (rc == CURLE_OK)
        rc = trust_set(curl, o);
    return rc == CURLE_OK ? identity_set(curl, o) : rc;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg);
static size_t on_header(char *p, size_t size, size_t n, void *arg);
static int on_progress(void *arg, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                       curl_off_t ul);

static CURLcode common_set(struct tg_http_client *c, const struct tg_http_client_opts *o)
{
    const struct {
        CURLoption option;
        long value;
    } longs[] = {
        {CURLOPT_NOSIGNAL,          1                                                 },
        {CURLOPT_FOLLOWLOCATION,    0                                                 },
        {CURLOPT_NOPROGRESS,        0                                                 },
        {CURLOPT_HTTP_VERSION,      CURL_HTTP_VERSION_1_1                             },
        {CURLOPT_TCP_KEEPALIVE,     1                                                 },
        {CURLOPT_MAXCONNECTS,       1                                                 },
        {CURLOPT_CONNECTTIMEOUT_MS,
         o->connect_timeout_ms != 0 ? (long)o->connect_timeout_ms : DEFAULT_CONNECT_MS},
        {CURLOPT_LOW_SPEED_LIMIT,   1                                                 },
        {CURLOPT_LOW_SPEED_TIME,
         o->stall_timeout_s != 0 ? (long)o->stall_timeout_s : DEFAULT_STALL_S         },
        {CURLOPT_TIMEOUT_MS,        (long)o->total_timeout_ms                         },
    };

    const struct {
        CURLoption option;
        const char *value;
    } texts[] = {
        {CURLOPT_PROXY,            ""            }, /* and not what the environment says */
        {CURLOPT_NOPROXY,          "*"           },
        {CURLOPT_PROTOCOLS_STR,    "http,https"  },
        {CURLOPT_UNIX_SOCKET_PATH, o->unix_socket},
    };

    CURLcode rc = curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->detail);

    for (size_t i = 0; rc == CURLE_OK && i < TG_ARRAY_LEN(longs); i++)
        rc = curl_easy_setopt(c->curl, longs[i].option, longs[i].value);
    for (size_t i = 0; rc == CURLE_OK && i < TG_ARRAY_LEN(texts); i++)
        rc = curl_easy_setopt(c->curl, texts[i].option, texts[i].value);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_body);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(c->curl, CURLOPT_HEADERFUNCTION, on_header);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(c->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    return rc;
}

TG_RC tg_http_client_new(const struct tg_http_client_opts *o, struct tg_http_client **out,
                         struct tg_err *err)
{
    TG_AUTO(tg_http_client_freep) struct tg_http_client *c = NULL;
    bool https = false;
    CURLcode rc;

    if (!url_ok(o->base_url, &https))
        return TG_FAIL(err, TG_E_USAGE,
                       "server: expected https://host[:port] or http://host[:port]");
    if (!https && !plain_ok(o))
        return TG_FAIL(err, TG_E_USAGE,
                       "server %s: give https://; nothing is sent there unencrypted", o->base_url);
    if (https && o->ca_pem.n == 0 && o->ca_file == NULL && !o->system_ca)
        return TG_FAIL(err, TG_E_USAGE, "server %s: https needs a CA certificate to trust",
                       o->base_url);
    tg_net_ignore_sigpipe();
    c = tg_calloc(1, sizeof(*c));
    if (c != NULL) {
        c->curl = curl_easy_init();
        c->base_url = tg_strdup(o->base_url);
        c->where = tg_strdup(o->unix_socket != NULL ? o->unix_socket : o->base_url);
    }
    if (c == NULL || c->curl == NULL || c->base_url == NULL || c->where == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    rc = common_set(c, o);
    if (rc == CURLE_OK && https)
        rc = tls_set(c->curl, o);
    if (rc != CURLE_OK)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "HTTP client: %s", curl_easy_strerror(rc));
    if (o->bearer != NULL) {
        enum tg_rc trc = tg_http_client_bearer(c, o->bearer);

        if (trc != TG_OK)
            return TG_FAIL(err, trc, "the bearer token is not one line of visible ASCII");
    }
    *out = tg_steal(&c);
    return TG_OK;
}

static void bearer_drop(struct tg_http_client *c)
{
    if (c->bearer != NULL)
        tg_wipe(c->bearer, strlen(c->bearer));
    tg_free(c->bearer);
    c->bearer = NULL;
}

void tg_http_client_free(struct tg_http_client *c)
{
    if (c == NULL)
        return;
    if (c->curl != NULL)
        curl_easy_cleanup(c->curl);
    bearer_drop(c);
    tg_free(c->base_url);
    tg_free(c->where);
    tg_free(c);
}

TG_RC tg_http_client_bearer(struct tg_http_client *c, const char *token)
{
    char *line = NULL;

    if (token != NULL) {
        if (*token == '\0' || strlen(token) > 4096 || !visible(token))
            return TG_E_FORMAT;
        line = tg_asprintf("Authorization: Bearer %s", token);
        if (line == NULL)
            return TG_E_NOMEM;
    }
    bearer_drop(c);
    c->bearer = line;
    return TG_OK;
}

/* --- the answer ------------------------------------------------------------------------------ */

void tg_http_answer_done(struct tg_http_answer *a)
{
    tg_buf_done(&a->body);
    *a = TG_HTTP_ANSWER_INIT;
}

static size_t stop(struct call *call, enum tg_rc rc)
{
    call->rc = rc;
    return 0; /* fewer bytes than given: libcurl ends the transfer */
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct call *call = arg;
    struct tg_http_answer *a = call->out;
    struct tg_bytes piece = tg_bytes_make(p, size * n);
    enum tg_rc rc;

    if (piece.n == 0)
        return 0;
    if (call->in->sink != NULL && a->status >= 200 && a->status < 300) {
        a->sink_bytes += piece.n;
        rc = call->in->sink(call->in->sink_arg, piece, call->err);
    } else {
        rc = tg_buf_bytes(&a->body, piece);
        if (rc == TG_E_LIMIT)
            tg_err_set(call->err, rc, "the server's answer is larger than %zu bytes", a->body.max);
        else if (rc != TG_OK)
            tg_err_set(call->err, rc, "out of memory");
    }
    return rc == TG_OK ? piece.n : stop(call, rc);
}

/* Copy a header's value, without the space around it, if it fits. */
static void value_copy(const char *line, size_t n, size_t name_n, char *out, size_t cap)
{
    const char *v = line + name_n + 1;
    const char *end = line + n;

    while (v < end && (*v == ' ' || *v == '\t'))
        v++;
    while (end > v && (unsigned char)end[-1] <= ' ')
        end--;
    if ((size_t)(end - v) < cap) {
        memcpy(out, v, (size_t)(end - v));
        out[end - v] = '\0';
    }
}

static bool header_is(const char *line, size_t n, const char *name)
{
    size_t k = strlen(name);

    return n > k && line[k] == ':' && strncasecmp(line, name, k) == 0;
}

static void status_line(struct tg_http_answer *a, const char *line, size_t n)
{
    /* A new status line (after "100 Continue") starts the answer over. */
    a->status = 0;
    a->etag[0] = a->type[0] = a->location[0] = '\0';
    a->has_range = false;
    a->retry_after_s = 0;
    if (n >= 12 && line[8] == ' ')
        for (size_t i = 9; i < 12; i++)
            a->status = a->status * 10 + (unsigned)(line[i] - '0') % 10;
}

static void header_read(struct tg_http_answer *a, const char *line, size_t n)
{
    char text[TG_RANGE_TEXT] = "";
    uint64_t seconds;

    if (header_is(line, n, "etag")) {
        value_copy(line, n, 4, a->etag, sizeof(a->etag));
    } else if (header_is(line, n, "content-type")) {
        value_copy(line, n, 12, a->type, sizeof(a->type));
    } else if (header_is(line, n, "location")) {
        value_copy(line, n, 8, a->location, sizeof(a->location));
    } else if (header_is(line, n, "content-range")) {
        value_copy(line, n, 13, text, sizeof(text));
        a->has_range =
            tg_content_range_parse(text, &a->range_off, &a->range_len, &a->range_size) == TG_OK;
    } else if (header_is(line, n, "retry-after")) {
        value_copy(line, n, 11, text, sizeof(text));
        if (tg_parse_u64(text, 86400, &seconds) == TG_OK)
            a->retry_after_s = (uint32_t)seconds;
    }
}

/* Before a byte of the body goes to the sink: is it the range that was asked for? */
static TG_RC range_check(struct call *call)
{
    const struct tg_http_call *in = call->in;
    const struct tg_http_answer *a = call->out;

    if (a->status != 206)
        return TG_OK;
    if (in->range_len == 0 || !a->has_range || a->range_off != in->range_off ||
        a->range_len > in->range_len ||
        (a->range_len < in->range_len && a->range_off + a->range_len != a->range_size))
        return TG_FAIL(call->err, TG_E_FORMAT,
                       "the server answered with another range than the one asked for");
    return TG_OK;
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
    struct call *call = arg;
    size_t total = size * n;

    call->header_bytes += total;
    if (call->header_bytes > HEADERS_MAX) {
        tg_err_set(call->err, TG_E_LIMIT, "the server's headers are larger than %d bytes",
                   HEADERS_MAX);
        return stop(call, TG_E_LIMIT);
    }
    if (total >= 5 && tg_mem_eq(p, "HTTP/", 5))
        status_line(call->out, p, total);
    else
        header_read(call->out, p, total);
    if (total == 2 && range_check(call) != TG_OK)
        return stop(call, TG_E_FORMAT);
    return total;
}

static int on_progress(void *arg, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                       curl_off_t ul)
{
    struct call *call = arg;
    enum tg_rc rc;

    (void)dl_total;
    (void)dl;
    (void)ul_total;
    (void)ul;
    if (call->in->tick == NULL)
        return 0;
    rc = call->in->tick(call->in->tick_arg);
    if (rc == TG_OK)
        return 0;
    call->rc = rc;
    tg_err_set(call->err, rc, "stopped: %s", tg_rc_text(rc));
    return 1;
}

/* --- the call -------------------------------------------------------------------------------- */

static TG_RC list_add(struct curl_slist **list, const char *name, const char *value)
{
    TG_AUTO(tg_freep) char *line = NULL;
    struct curl_slist *more;

    if (value == NULL)
        return TG_OK;
    if (strpbrk(name, "\r\n:") != NULL || strpbrk(value, "\r\n") != NULL)
        return TG_E_FORMAT;
    /* "Name;" is libcurl's way to send an empty value; "Name:" would drop the header. */
    line = *value != '\0' ? tg_asprintf("%s: %s", name, value) : tg_asprintf("%s;", name);
    more = line != NULL ? curl_slist_append(*list, line) : NULL;
    if (more == NULL)
        return TG_E_NOMEM;
    *list = more;
    return TG_OK;
}

static TG_RC headers_make(const struct tg_http_client *c, const struct tg_http_call *in,
                          struct curl_slist **list)
{
    char range[TG_RANGE_TEXT];
    struct curl_slist *more;

    for (size_t i = 0; i < in->headers_n; i++)
        TG_TRY(list_add(list, in->headers[i].name, in->headers[i].value));
    TG_TRY(list_add(list, "Content-Type", in->type));
    TG_TRY(list_add(list, "If-None-Match", in->if_none_match));
    TG_TRY(list_add(list, "If-Match", in->if_match));
    if (in->range_len > 0) {
        tg_range_format_request(in->range_off, in->range_len, range);
        TG_TRY(list_add(list, "Range", range));
        TG_TRY(list_add(list, "If-Range", in->if_range));
    }
    if (c->bearer != NULL) {
        more = curl_slist_append(*list, c->bearer);
        if (more == NULL)
            return TG_E_NOMEM;
        *list = more;
    }
    return TG_OK;
}

static CURLcode request_set(CURL *curl, const struct tg_http_call *in, const char *url)
{
    bool body = in->has_body || in->body.n > 0 || in->method == TG_HTTP_POST ||
                in->method == TG_HTTP_PUT || in->method == TG_HTTP_PATCH;
    CURLcode rc = curl_easy_setopt(curl, CURLOPT_URL, url);

    /* Options of the last call are undone in the order libcurl documents: method last. */
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(curl, CURLOPT_NOBODY, in->method == TG_HTTP_HEAD ? 1L : 0L);
    if (rc == CURLE_OK && body) {
        rc = curl_easy_setopt(curl, CURLOPT_POST, 1L);
        if (rc == CURLE_OK)
            rc = curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)in->body.n);
        if (rc == CURLE_OK)
            rc = curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
                                  in->body.n > 0 ? (const char *)in->body.p : "");
    }
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST,
                              in->method == TG_HTTP_HEAD ? NULL : tg_http_method_name(in->method));
    return rc;
}

struct code_row {
    CURLcode code;
    enum tg_rc rc;
};

static const struct code_row codes[] = {
    {CURLE_COULDNT_CONNECT,          TG_E_IO     },
    {CURLE_COULDNT_RESOLVE_HOST,     TG_E_IO     },
    {CURLE_OUT_OF_MEMORY,            TG_E_NOMEM  },
    {CURLE_OPERATION_TIMEDOUT,       TG_E_TIMEOUT},
    {CURLE_PEER_FAILED_VERIFICATION, TG_E_AUTH   },
    {CURLE_SSL_CONNECT_ERROR,        TG_E_AUTH   },
    {CURLE_SSL_CERTPROBLEM,          TG_E_FORMAT },
    {CURLE_SSL_CACERT_BADFILE,       TG_E_FORMAT },
    {CURLE_SSL_ISSUER_ERROR,         TG_E_AUTH   },
    {CURLE_PARTIAL_FILE,             TG_E_CLOSED },
    {CURLE_GOT_NOTHING,              TG_E_CLOSED },
    {CURLE_SEND_ERROR,               TG_E_CLOSED },
    {CURLE_RECV_ERROR,               TG_E_CLOSED },
    {CURLE_WEIRD_SERVER_REPLY,       TG_E_FORMAT },
    {CURLE_UNSUPPORTED_PROTOCOL,     TG_E_FORMAT },
};

/* TLS 1.3 lets a client finish before the server has looked at its certificate: the refusal arrives
 * as an alert on the first read. */
static bool refused_us(const char *detail)
{
    return strstr(detail, "alert") != NULL &&
           (strstr(detail, "certificate") != NULL || strstr(detail, "unknown ca") != NULL ||
            strstr(detail, "decrypt error") != NULL || strstr(detail, "unsupported") != NULL);
}

bool tg_http_client_refused(const struct tg_http_client *c)
{
    return refused_us(c->detail);
}

/* libcurl has one code for a handshake that was refused and one that was cut off by the other side
 * going away, which says nothing about who it was. */
static bool cut_off(const char *detail)
{
    static const char *const words[] = {"SSL_ERROR_SYSCALL", "unexpected eof", "reset by peer",
                                        "Send failure", "Recv failure"};

    for (size_t i = 0; i < TG_ARRAY_LEN(words); i++)
        if (strstr(detail, words[i]) != NULL)
            return true;
    return false;
}

static TG_RC fail_curl(const struct tg_http_client *c, CURLcode code, struct tg_err *err)
{
    enum tg_rc rc = TG_E_INTERNAL;

    for (size_t i = 0; i < TG_ARRAY_LEN(codes); i++)
        if (codes[i].code == code)
            rc = codes[i].rc;
    if (code == CURLE_SSL_CONNECT_ERROR && cut_off(c->detail))
        rc = TG_E_CLOSED;
    if (rc == TG_E_CLOSED && refused_us(c->detail))
        rc = TG_E_AUTH;
    return TG_FAIL(err, rc, "%s: %s", c->where,
                   c->detail[0] != '\0' ? c->detail : curl_easy_strerror(code));
}

static TG_RC perform(struct tg_http_client *c, struct call *call, const char *url,
                     struct curl_slist *headers)
{
    CURLcode code = request_set(c->curl, call->in, url);
    long fresh = 0;

    c->detail[0] = '\0';
    if (code == CURLE_OK)
        code = curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
    if (code == CURLE_OK)
        code = curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, call);
    if (code == CURLE_OK)
        code = curl_easy_setopt(c->curl, CURLOPT_HEADERDATA, call);
    if (code == CURLE_OK)
        code = curl_easy_setopt(c->curl, CURLOPT_XFERINFODATA, call);
    if (code == CURLE_OK)
        code = curl_easy_perform(c->curl);
    (void)curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, NULL);
    if (call->rc != TG_OK)
        return call->rc; /* err is set */
    if (code != CURLE_OK)
        return fail_curl(c, code, call->err);
    (void)curl_easy_getinfo(c->curl, CURLINFO_NUM_CONNECTS, &fresh);
    call->out->connection_reused = fresh == 0;
    return TG_OK;
}

TG_RC tg_http_client_do(struct tg_http_client *c, const struct tg_http_call *in,
                        struct tg_http_answer *answer, struct tg_err *err)
{
    struct call call = {.in = in, .out = answer, .err = err, .rc = TG_OK};
    TG_AUTO(tg_freep) char *url = NULL;
    struct curl_slist *headers = NULL;
    enum tg_rc rc;

    if (in->target == NULL || in->target[0] != '/' || !visible(in->target))
        return TG_FAIL(err, TG_E_USAGE, "request target: must begin with '/' and be escaped");
    tg_http_answer_done(answer);
    answer->body = TG_BUF_INIT(in->max_body != 0 ? in->max_body : DEFAULT_MAX_BODY);
    url = tg_asprintf("%s%s", c->base_url, in->target);
    if (url == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    rc = headers_make(c, in, &headers);
    if (rc == TG_OK)
        rc = perform(c, &call, url, headers);
    else
        tg_err_set(err, rc, "request headers: %s", tg_rc_text(rc));
    curl_slist_free_all(headers);
    return rc;
}

TG_RC tg_http_answer_check(const struct tg_http_answer *a, struct tg_err *err)
{
    if ((a->status >= 200 && a->status < 300) || a->status == 304)
        return TG_OK;
    return tg_http_problem_decode(a->status, tg_buf_view(&a->body), err);
}
