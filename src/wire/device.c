#include "wire/device.h"

#define T struct tg_wire_enrol
static const struct tg_jfield enrol_fields[] = {
    TG_J_STR(T, token, 1, TG_WIRE_TOKEN_MAX, TG_J_REQ),
    TG_J_STR(T, fleet, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_STR(T, name, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_STR(T, csr, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
    TG_J_FIXED(T, kem_public_key, TG_J_REQ),
    TG_J_STR(T, agent_version, 1, 64, TG_J_REQ),
    TG_J_BOOL(T, separation, TG_J_REQ),
};
const struct tg_jschema tg_wire_enrol = TG_J_SCHEMA(T, enrol_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_enrolled
static const struct tg_jfield enrolled_fields[] = {
    TG_WIRE_J_ID(T, device_id, TG_J_REQ),
    TG_J_STR(T, fleet, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_STR(T, certificate, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
    TG_J_STR(T, device_ca, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
    TG_J_HEX(T, platform_key_id, TG_J_REQ),
};
const struct tg_jschema tg_wire_enrolled = TG_J_SCHEMA(T, enrolled_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_renew
static const struct tg_jfield renew_fields[] = {
    TG_J_STR(T, csr, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
};
const struct tg_jschema tg_wire_renew = TG_J_SCHEMA(T, renew_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_renewed
static const struct tg_jfield renewed_fields[] = {
    TG_J_STR(T, certificate, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
    TG_J_STR(T, device_ca, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
};
const struct tg_jschema tg_wire_renewed = TG_J_SCHEMA(T, renewed_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_checkin
static const struct tg_jfield checkin_fields[] = {
    TG_J_STR(T, agent_version, 1, 64, TG_J_REQ),
    TG_J_BOOL(T, separation, TG_J_REQ),
    TG_J_STR(T, protection, 1, TG_WIRE_LEVEL_MAX, TG_J_SKIP0),
    TG_J_HEX(T, running, TG_J_SKIP0),
    TG_J_STR(T, status, 1, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
    TG_J_HEX(T, have_document, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_checkin = TG_J_SCHEMA(T, checkin_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_directive
static const struct tg_jfield directive_fields[] = {
    TG_WIRE_J_ID(T, deployment_id, TG_J_REQ),
    TG_J_HEX(T, package, TG_J_REQ),
    TG_J_HEX(T, blob_sha256, TG_J_REQ),
    TG_J_U64(T, blob_size, 1, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_BOOL(T, grant, TG_J_REQ),
    TG_J_HEX(T, grant_sha256, TG_J_SKIP0),
    TG_J_ENUM(T, update_state, tg_update_state_names, TG_J_REQ),
    TG_J_U64(T, seq, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_RAW(T, document, TG_WIRE_DEPLOYMENT_DOC_MAX, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_directive = TG_J_SCHEMA(T, directive_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_directions
static const struct tg_jfield directions_fields[] = {
    TG_J_TIME(T, now, TG_J_REQ),
    TG_J_U64(T, next_poll_s, 1, 86400, TG_J_REQ),
    TG_J_OBJS(T, deployments, &tg_wire_directive, 0, 16, TG_J_REQ),
};
const struct tg_jschema tg_wire_directions = TG_J_SCHEMA(T, directions_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_report
static const struct tg_jfield report_fields[] = {
    TG_J_U64(T, seq, 1, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_ENUM(T, state, tg_update_state_names, TG_J_REQ),
    TG_J_STR(T, code, 1, 32, TG_J_SKIP0),
    TG_J_STR(T, reason, 1, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
    TG_J_STR(T, handover, 1, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_report = TG_J_SCHEMA(T, report_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_reported
static const struct tg_jfield reported_fields[] = {
    TG_J_U64(T, seq, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_ENUM(T, state, tg_update_state_names, TG_J_REQ),
    TG_J_BOOL(T, applied, TG_J_REQ),
};
const struct tg_jschema tg_wire_reported = TG_J_SCHEMA(T, reported_fields, TG_J_IGNORE_UNKNOWN);
#undef T
