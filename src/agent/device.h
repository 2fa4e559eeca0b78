/* The platform's device API (docs/api.md, "Routes for devices") as calls. Blocking; used by the
 * network thread and by enrolment. */
#ifndef TG_AGENT_DEVICE_H
#define TG_AGENT_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/outbox.h"
#include "agent/records.h"
#include "agent/state.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "net/http_client.h"
#include "wire/device.h"

/* The platform as this device reaches it. */
struct tg_device {
    struct tg_http_client *http;   /* owned */
    enum tg_rc (*tick)(void *arg); /* asked now and then, also while connecting; NULL: never.
                                      Anything but TG_OK breaks the call off */
    void *tick_arg;
};

#define TG_DEVICE_INIT ((struct tg_device){NULL, NULL, NULL})
void tg_device_done(struct tg_device *d);

/* A client that shows this device's certificate (cert false: none, for enrolment) and believes
 * ca.pem of the state folder alone. Reads the files now: make a new one after a renewal. */
TG_RC tg_device_open(const struct tg_state *s, const char *server, bool cert, struct tg_device *out,
                     struct tg_err *err);

/* Failures below: no connection and broken ones as tg_http_client_do; answers of status >= 400 as
 * their problem says. *retry_s: Retry-After, 0 without one. */

TG_RC tg_device_enrol(struct tg_device *d, const struct tg_wire_enrol *in, struct tg_arena *arena,
                      struct tg_wire_enrolled *out, struct tg_err *err);

TG_RC tg_device_checkin(struct tg_device *d, const struct tg_wire_checkin *in,
                        struct tg_arena *arena, struct tg_wire_directions *out, uint32_t *retry_s,
                        struct tg_err *err);

/* *over: the platform will never take it (update superseded or cancelled, deployment unknown); then
 * TG_OK. */
TG_RC tg_device_report(struct tg_device *d, const struct tg_outbox_item *item, bool *over,
                       struct tg_err *err);

/* The grant's text. @retval TG_E_NOTFOUND none yet */
TG_RC tg_device_grant(struct tg_device *d, const uint8_t h[32], struct tg_buf *out,
                      struct tg_err *err);

/* New certificate for `csr` into *pem. */
TG_RC tg_device_renew(struct tg_device *d, const char *csr, struct tg_buf *pem, struct tg_err *err);

#endif
