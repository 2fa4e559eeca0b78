#include "wire/deploy.h"

const char *const tg_update_state_names[] = {
    "pending", "offered", "downloading", "downloaded", "verifying", "loading",
    "running", "failed",  "rolled_back", "superseded", "cancelled", NULL};
const char *const tg_deployment_state_names[] = {"active", "cancelled", NULL};

#define B(s) (1U << TG_UPDATE_##s)

/* Reports can be lost, so a device may skip ahead; it may start over from downloading after a
 * restart, a failure or a way back; it can only have rolled back from what it had begun to run. */
#define BEFORE_RUN (B(DOWNLOADING) | B(DOWNLOADED) | B(VERIFYING) | B(LOADING) | B(FAILED))
#define ANY (BEFORE_RUN | B(RUNNING) | B(ROLLED_BACK))

static const unsigned may_follow[TG_UPDATE_COUNT] = {
    [TG_UPDATE_PENDING] = 0, /* a device can't know of what it was not offered */
    [TG_UPDATE_OFFERED] = ANY,
    [TG_UPDATE_DOWNLOADING] = ANY,
    [TG_UPDATE_DOWNLOADED] = ANY,
    [TG_UPDATE_VERIFYING] = ANY,
    [TG_UPDATE_LOADING] = ANY,
    [TG_UPDATE_RUNNING] = B(RUNNING) | B(FAILED) | B(ROLLED_BACK) | B(VERIFYING) | B(LOADING),
    [TG_UPDATE_FAILED] = ANY,
    [TG_UPDATE_ROLLED_BACK] = ANY,
    [TG_UPDATE_SUPERSEDED] = 0,
    [TG_UPDATE_CANCELLED] = 0,
};

bool tg_update_may_follow(enum tg_update_state from, enum tg_update_state to)
{
    return from < TG_UPDATE_COUNT && to < TG_UPDATE_COUNT && (may_follow[from] & 1U << to) != 0;
}

#define T struct tg_wire_deployment_new
static const struct tg_jfield deployment_new_fields[] = {
    TG_J_HEX(T, package, TG_J_REQ),
    TG_J_STR(T, fleet, 1, TG_WIRE_NAME_MAX, TG_J_SKIP0),
    TG_WIRE_J_ID(T, device, TG_J_SKIP0),
    TG_J_BOOL(T, allow_rollback, TG_J_OPT),
};
const struct tg_jschema tg_wire_deployment_new =
    TG_J_SCHEMA(T, deployment_new_fields, TG_J_REFUSE_UNKNOWN);
#undef T

#define T struct tg_wire_update
static const struct tg_jfield update_fields[] = {
    TG_WIRE_J_ID(T, device, TG_J_REQ),
    TG_J_STR(T, device_name, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_ENUM(T, state, tg_update_state_names, TG_J_REQ),
    TG_J_STR(T, code, 1, 32, TG_J_SKIP0),
    TG_J_STR(T, reason, 1, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
    TG_J_U64(T, seq, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_TIME(T, updated_at, TG_J_REQ),
};
const struct tg_jschema tg_wire_update = TG_J_SCHEMA(T, update_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_update_counts
#define COUNT(m) TG_J_U64(T, m, 0, TG_JSON_INT_MAX, TG_J_REQ)
static const struct tg_jfield update_counts_fields[] = {
    COUNT(pending),     COUNT(offered),    COUNT(downloading), COUNT(downloaded),
    COUNT(verifying),   COUNT(loading),    COUNT(running),     COUNT(failed),
    COUNT(rolled_back), COUNT(superseded), COUNT(cancelled),
};
const struct tg_jschema tg_wire_update_counts =
    TG_J_SCHEMA(T, update_counts_fields, TG_J_IGNORE_UNKNOWN);
#undef COUNT
#undef T

#define T struct tg_wire_deployment
static const struct tg_jfield deployment_fields[] = {
    TG_WIRE_J_ID(T, id, TG_J_REQ),
    TG_J_ENUM(T, state, tg_deployment_state_names, TG_J_REQ),
    TG_J_HEX(T, package, TG_J_REQ),
    TG_J_STR(T, model, 1, 256, TG_J_REQ),
    TG_J_STR(T, version, 0, 128, TG_J_REQ),
    TG_J_STR(T, fleet, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_WIRE_J_ID(T, device, TG_J_SKIP0),
    TG_J_BOOL(T, allow_rollback, TG_J_REQ),
    TG_J_TIME(T, created_at, TG_J_REQ),
    TG_J_STR(T, created_by, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_OBJ(T, counts, &tg_wire_update_counts, TG_J_REQ),
    TG_J_OBJS(T, updates, &tg_wire_update, 0, TG_WIRE_PAGE_MAX, TG_J_SKIP0),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_deployment = TG_J_SCHEMA(T, deployment_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_deployments
static const struct tg_jfield deployments_fields[] = {
    TG_J_OBJS(T, items, &tg_wire_deployment, 0, TG_WIRE_PAGE_MAX, TG_J_REQ),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_deployments =
    TG_J_SCHEMA(T, deployments_fields, TG_J_IGNORE_UNKNOWN);
#undef T
