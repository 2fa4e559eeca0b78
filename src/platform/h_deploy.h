/* The signed deployment document, made when a deployment is and again at half its life. */
#ifndef TG_PLATFORM_H_DEPLOY_H
#define TG_PLATFORM_H_DEPLOY_H

#include "platform/call.h"
#include "store/deploy.h"

/* Sign anew: fills document (in the arena), document_sha256 and document_at from the rest of the
 * row. */
TG_RC tg_deployment_sign(struct tg_call *c, struct tg_deployment_row *row, struct tg_err *err);

#endif
