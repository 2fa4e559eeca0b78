#include "wire/fleet.h"

#include "wire/deploy.h"

#define ENROLMENT_LIFE_MAX (UINT64_C(30) * 86400)

const char *const tg_grant_policy_names[] = {"any", "author", NULL};
const char *const tg_enrolment_state_names[] = {"open", "used", "expired", NULL};
const char *const tg_device_state_names[] = {"active", "revoked", NULL};

#define T struct tg_wire_fleet_new
static const struct tg_jfield fleet_new_fields[] = {
    TG_J_STR(T, name, 1, TG_WIRE_NAME_MAX, TG_J_SKIP0),
    TG_J_STR(T, description, 0, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
    TG_J_ENUM(T, grants, tg_grant_policy_names, TG_J_OPT),
};
const struct tg_jschema tg_wire_fleet_new = TG_J_SCHEMA(T, fleet_new_fields, TG_J_REFUSE_UNKNOWN);
#undef T

#define T struct tg_wire_fleet
static const struct tg_jfield fleet_fields[] = {
    TG_J_STR(T, name, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_STR(T, description, 0, TG_WIRE_TEXT_MAX, TG_J_REQ),
    TG_J_ENUM(T, grants, tg_grant_policy_names, TG_J_REQ),
    TG_J_TIME(T, created_at, TG_J_REQ),
    TG_J_U64(T, devices, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_WIRE_J_ID(T, deployment, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_fleet = TG_J_SCHEMA(T, fleet_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_fleets
static const struct tg_jfield fleets_fields[] = {
    TG_J_OBJS(T, items, &tg_wire_fleet, 0, TG_WIRE_PAGE_MAX, TG_J_REQ),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_fleets = TG_J_SCHEMA(T, fleets_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_enrolment_token_new
static const struct tg_jfield enrolment_token_new_fields[] = {
    TG_J_STR(T, fleet, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_U64(T, expires_in_s, 60, ENROLMENT_LIFE_MAX, TG_J_SKIP0),
    TG_J_STR(T, note, 0, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_enrolment_token_new =
    TG_J_SCHEMA(T, enrolment_token_new_fields, TG_J_REFUSE_UNKNOWN);
#undef T

#define T struct tg_wire_enrolment_token
static const struct tg_jfield enrolment_token_fields[] = {
    TG_WIRE_J_ID(T, id, TG_J_REQ),
    TG_J_STR(T, fleet, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_ENUM(T, state, tg_enrolment_state_names, TG_J_REQ),
    TG_J_TIME(T, created_at, TG_J_REQ),
    TG_J_TIME(T, expires_at, TG_J_REQ),
    TG_J_STR(T, note, 1, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
    TG_WIRE_J_ID(T, device, TG_J_SKIP0),
    TG_J_STR(T, token, 1, TG_WIRE_TOKEN_MAX, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_enrolment_token =
    TG_J_SCHEMA(T, enrolment_token_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_enrolment_tokens
static const struct tg_jfield enrolment_tokens_fields[] = {
    TG_J_OBJS(T, items, &tg_wire_enrolment_token, 0, TG_WIRE_PAGE_MAX, TG_J_REQ),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_enrolment_tokens =
    TG_J_SCHEMA(T, enrolment_tokens_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_device
static const struct tg_jfield device_fields[] = {
    TG_WIRE_J_ID(T, id, TG_J_REQ),
    TG_J_STR(T, name, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_STR(T, fleet, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_ENUM(T, state, tg_device_state_names, TG_J_REQ),
    TG_J_TIME(T, enrolled_at, TG_J_REQ),
    TG_J_TIME(T, last_seen, TG_J_SKIP0),
    TG_J_TIME(T, certificate_not_after, TG_J_REQ),
    TG_J_STR(T, certificate_serial, 1, 64, TG_J_REQ),
    TG_J_HEX(T, kem_key_id, TG_J_REQ),
    TG_J_STR(T, agent_version, 1, 64, TG_J_REQ),
    TG_J_BOOL(T, separation, TG_J_REQ),
    TG_J_STR(T, protection, 1, TG_WIRE_LEVEL_MAX, TG_J_SKIP0),
    TG_J_HEX(T, running, TG_J_SKIP0),
    TG_J_STR(T, status, 1, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
    TG_WIRE_J_ID(T, deployment, TG_J_SKIP0),
    TG_J_ENUM(T, update_state, tg_update_state_names, TG_J_OPT),
    TG_J_STR(T, update_reason, 1, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
    TG_J_STR(T, reason, 1, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_device = TG_J_SCHEMA(T, device_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_devices
static const struct tg_jfield devices_fields[] = {
    TG_J_OBJS(T, items, &tg_wire_device, 0, TG_WIRE_PAGE_MAX, TG_J_REQ),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_devices = TG_J_SCHEMA(T, devices_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_revoke
static const struct tg_jfield revoke_fields[] = {
    TG_J_STR(T, reason, 1, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_revoke = TG_J_SCHEMA(T, revoke_fields, TG_J_REFUSE_UNKNOWN);
#undef T

#define T struct tg_wire_kem_key
static const struct tg_jfield kem_key_fields[] = {
    TG_WIRE_J_ID(T, device, TG_J_REQ),
    TG_J_STR(T, name, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_HEX(T, kem_key_id, TG_J_REQ),
    TG_J_FIXED(T, kem_public_key, TG_J_REQ),
};
const struct tg_jschema tg_wire_kem_key = TG_J_SCHEMA(T, kem_key_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_kem_keys
static const struct tg_jfield kem_keys_fields[] = {
    TG_J_OBJS(T, items, &tg_wire_kem_key, 0, TG_WIRE_PAGE_MAX, TG_J_REQ),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_kem_keys = TG_J_SCHEMA(T, kem_keys_fields, TG_J_IGNORE_UNKNOWN);
#undef T
