/* TLS set-up of the server, and the groups both sides speak. */
#ifndef TG_NET_TLS_INTERNAL_H
#define TG_NET_TLS_INTERNAL_H

#include <openssl/ssl.h>

#include "net/http_server.h"

/* Preference for key exchange (docs/architecture.md): the hybrid first. On the server the '/' makes
 * it a class of its own: a client that knows it but sent another key share is asked again (RFC 8446
 * §4.1.4) rather than served without it. */
#define TG_TLS_SERVER_GROUPS "X25519MLKEM768/X25519:P-256"
#define TG_TLS_CLIENT_GROUPS "X25519MLKEM768:X25519:P-256"
#define TG_TLS_SUITES "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"

/* See struct tg_tls_opts. Freed with SSL_CTX_free.
 * @retval TG_E_FORMAT certificate, key or CA cannot be read, or don't belong together */
TG_RC tg_tls_server_ctx(const struct tg_tls_opts *opts, SSL_CTX **out, struct tg_err *err);

/* A write to a connection the peer has closed must be an error, not a signal. Process-wide; leaves
 * a handler somebody installed alone. */
void tg_net_ignore_sigpipe(void);

#endif
