#include "wire/access.h"

#define DAY UINT64_C(86400)
#define TOKEN_LIFE_MAX (366 * DAY)

const char *const tg_access_names[] = {"admin", "publisher", "operator", "viewer", NULL};

#define T struct tg_wire_login
static const struct tg_jfield login_fields[] = {
    TG_J_STR(T, token, 1, TG_WIRE_TOKEN_MAX, TG_J_REQ),
    TG_J_STR(T, name, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
};
const struct tg_jschema tg_wire_login = TG_J_SCHEMA(T, login_fields, TG_J_REFUSE_UNKNOWN);
#undef T

#define T struct tg_wire_token_new
static const struct tg_jfield token_new_fields[] = {
    TG_J_STR(T, name, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_ENUM(T, role, tg_access_names, TG_J_REQ),
    TG_J_U64(T, expires_in_s, 60, TOKEN_LIFE_MAX, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_token_new = TG_J_SCHEMA(T, token_new_fields, TG_J_REFUSE_UNKNOWN);
#undef T

#define T struct tg_wire_token
static const struct tg_jfield token_fields[] = {
    TG_WIRE_J_ID(T, id, TG_J_REQ),
    TG_J_STR(T, name, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_ENUM(T, role, tg_access_names, TG_J_REQ),
    TG_J_TIME(T, created_at, TG_J_REQ),
    TG_J_TIME(T, expires_at, TG_J_REQ),
    TG_J_TIME(T, last_used, TG_J_SKIP0),
    TG_J_STR(T, token, 1, TG_WIRE_TOKEN_MAX, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_token = TG_J_SCHEMA(T, token_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_tokens
static const struct tg_jfield tokens_fields[] = {
    TG_J_OBJS(T, items, &tg_wire_token, 0, TG_WIRE_PAGE_MAX, TG_J_REQ),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_tokens = TG_J_SCHEMA(T, tokens_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_platform
static const struct tg_jfield platform_fields[] = {
    TG_J_STR(T, version, 1, 64, TG_J_REQ),
    TG_J_STR(T, name, 1, 256, TG_J_REQ),
    TG_J_STR(T, api_url, 1, TG_WIRE_URL_MAX, TG_J_REQ),
    TG_J_STR(T, device_url, 1, TG_WIRE_URL_MAX, TG_J_REQ),
    TG_J_HEX(T, vault_key_id, TG_J_REQ),
    TG_J_STR(T, vault_public_key, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
    TG_J_HEX(T, platform_key_id, TG_J_REQ),
    TG_J_STR(T, platform_public_key, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
    TG_J_STR(T, server_ca, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
    TG_J_STR(T, device_ca, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
    TG_J_TIME(T, now, TG_J_REQ),
};
const struct tg_jschema tg_wire_platform = TG_J_SCHEMA(T, platform_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_audit_row
static const struct tg_jfield audit_row_fields[] = {
    TG_J_U64(T, seq, 1, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_TIME(T, at, TG_J_REQ),
    TG_J_STR(T, actor, 1, 128, TG_J_REQ),
    TG_J_STR(T, name, 0, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_STR(T, address, 0, 64, TG_J_REQ),
    TG_J_STR(T, action, 1, 64, TG_J_REQ),
    TG_J_STR(T, target, 0, 512, TG_J_REQ),
    TG_J_HEX(T, package, TG_J_SKIP0),
    TG_J_STR(T, outcome, 1, 16, TG_J_REQ),
    TG_J_STR(T, detail, 0, TG_WIRE_TEXT_MAX, TG_J_REQ),
    TG_J_HEX(T, prev_hash, TG_J_REQ),
    TG_J_HEX(T, hash, TG_J_REQ),
};
const struct tg_jschema tg_wire_audit_row = TG_J_SCHEMA(T, audit_row_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_audit
static const struct tg_jfield audit_fields[] = {
    TG_J_OBJS(T, items, &tg_wire_audit_row, 0, TG_WIRE_PAGE_MAX, TG_J_REQ),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_audit = TG_J_SCHEMA(T, audit_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_audit_check
static const struct tg_jfield audit_check_fields[] = {
    TG_J_BOOL(T, ok, TG_J_REQ),
    TG_J_U64(T, entries, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_HEX(T, head, TG_J_REQ),
    TG_J_U64(T, first_bad, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_STR(T, detail, 1, TG_WIRE_TEXT_MAX, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_audit_check =
    TG_J_SCHEMA(T, audit_check_fields, TG_J_IGNORE_UNKNOWN);
#undef T
