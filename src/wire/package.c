#include "wire/package.h"

#define PACKAGE_MAX ((UINT64_C(1) << 42) + (UINT64_C(1) << 26))

const char *const tg_upload_state_names[] = {"open", "done", NULL};

#define T struct tg_wire_publisher_new
static const struct tg_jfield publisher_new_fields[] = {
    TG_J_STR(T, name, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_STR(T, public_key, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
    TG_J_STRS(T, models, 0, 64, TG_J_OPT),
};
const struct tg_jschema tg_wire_publisher_new =
    TG_J_SCHEMA(T, publisher_new_fields, TG_J_REFUSE_UNKNOWN);
#undef T

#define T struct tg_wire_publisher
static const struct tg_jfield publisher_fields[] = {
    TG_J_HEX(T, key_id, TG_J_REQ),
    TG_J_STR(T, name, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
    TG_J_STR(T, public_key, 1, TG_WIRE_PEM_MAX, TG_J_REQ),
    TG_J_STRS(T, models, 0, 64, TG_J_REQ),
    TG_J_TIME(T, created_at, TG_J_REQ),
};
const struct tg_jschema tg_wire_publisher = TG_J_SCHEMA(T, publisher_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_publishers
static const struct tg_jfield publishers_fields[] = {
    TG_J_OBJS(T, items, &tg_wire_publisher, 0, TG_WIRE_PAGE_MAX, TG_J_REQ),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_publishers = TG_J_SCHEMA(T, publishers_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_upload_new
static const struct tg_jfield upload_new_fields[] = {
    TG_J_U64(T, size, 1, PACKAGE_MAX, TG_J_REQ),
    TG_J_HEX(T, sha256, TG_J_REQ),
    TG_J_U64(T, part_size, TG_WIRE_PART_MIN, TG_WIRE_PART_MAX, TG_J_REQ),
};
const struct tg_jschema tg_wire_upload_new = TG_J_SCHEMA(T, upload_new_fields, TG_J_REFUSE_UNKNOWN);
#undef T

#define T struct tg_wire_part_range
static const struct tg_jfield part_range_fields[] = {
    TG_J_U64(T, first, 0, TG_WIRE_PARTS_MAX, TG_J_REQ),
    TG_J_U64(T, last, 0, TG_WIRE_PARTS_MAX, TG_J_REQ),
};
const struct tg_jschema tg_wire_part_range = TG_J_SCHEMA(T, part_range_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_upload
static const struct tg_jfield upload_fields[] = {
    TG_WIRE_J_ID(T, id, TG_J_REQ),
    TG_J_ENUM(T, state, tg_upload_state_names, TG_J_REQ),
    TG_J_U64(T, size, 1, PACKAGE_MAX, TG_J_REQ),
    TG_J_HEX(T, sha256, TG_J_REQ),
    TG_J_U64(T, part_size, TG_WIRE_PART_MIN, TG_WIRE_PART_MAX, TG_J_REQ),
    TG_J_U64(T, parts, 1, TG_WIRE_PARTS_MAX, TG_J_REQ),
    TG_J_U64(T, received, 0, TG_WIRE_PARTS_MAX, TG_J_REQ),
    TG_J_OBJS(T, missing, &tg_wire_part_range, 0, 256, TG_J_REQ),
    TG_J_TIME(T, created_at, TG_J_REQ),
    TG_J_TIME(T, expires_at, TG_J_REQ),
    TG_J_HEX(T, package, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_upload = TG_J_SCHEMA(T, upload_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_part
static const struct tg_jfield part_fields[] = {
    TG_J_U64(T, part, 0, TG_WIRE_PARTS_MAX, TG_J_REQ),
    TG_J_U64(T, size, 1, TG_WIRE_PART_MAX, TG_J_REQ),
    TG_J_HEX(T, sha256, TG_J_REQ),
    TG_J_BOOL(T, repeated, TG_J_REQ),
};
const struct tg_jschema tg_wire_part = TG_J_SCHEMA(T, part_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_model
static const struct tg_jfield model_fields[] = {
    TG_J_STR(T, name, 1, 256, TG_J_REQ),
    TG_J_STR(T, version, 0, 128, TG_J_REQ),
    TG_J_STR(T, format, 1, 32, TG_J_REQ),
    TG_J_U64(T, sequence, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(T, floor, 0, TG_JSON_INT_MAX, TG_J_REQ),
};
const struct tg_jschema tg_wire_model = TG_J_SCHEMA(T, model_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_package
static const struct tg_jfield package_fields[] = {
    TG_J_HEX(T, header_sha256, TG_J_REQ),
    TG_J_HEX(T, blob_sha256, TG_J_REQ),
    TG_J_U64(T, blob_size, 1, PACKAGE_MAX, TG_J_REQ),
    TG_J_OBJ(T, model, &tg_wire_model, TG_J_REQ),
    TG_J_TIME(T, created_at, TG_J_REQ),
    TG_J_TIME(T, not_before, TG_J_SKIP0),
    TG_J_TIME(T, not_after, TG_J_SKIP0),
    TG_J_STRS(T, fleets, 0, 64, TG_J_REQ),
    TG_J_STRS(T, signers, 0, 16, TG_J_REQ),
    TG_J_U64(T, recipients, 1, 65536, TG_J_REQ),
    TG_J_BOOL(T, vault, TG_J_REQ),
    TG_J_TIME(T, uploaded_at, TG_J_REQ),
    TG_J_STR(T, uploaded_by, 1, TG_WIRE_NAME_MAX, TG_J_REQ),
};
const struct tg_jschema tg_wire_package = TG_J_SCHEMA(T, package_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_packages
static const struct tg_jfield packages_fields[] = {
    TG_J_OBJS(T, items, &tg_wire_package, 0, TG_WIRE_PAGE_MAX, TG_J_REQ),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_packages = TG_J_SCHEMA(T, packages_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_grant
static const struct tg_jfield grant_fields[] = {
    TG_J_HEX(T, kem_key_id, TG_J_REQ), TG_J_HEX(T, granter, TG_J_REQ),
    TG_J_BOOL(T, vault, TG_J_REQ),     TG_J_TIME(T, issued_at, TG_J_REQ),
    TG_J_TIME(T, not_after, TG_J_REQ),
};
const struct tg_jschema tg_wire_grant = TG_J_SCHEMA(T, grant_fields, TG_J_IGNORE_UNKNOWN);
#undef T

#define T struct tg_wire_grants
static const struct tg_jfield grants_fields[] = {
    TG_J_OBJS(T, items, &tg_wire_grant, 0, TG_WIRE_PAGE_MAX, TG_J_REQ),
    TG_J_STR(T, next, 1, 256, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_grants = TG_J_SCHEMA(T, grants_fields, TG_J_IGNORE_UNKNOWN);
#undef T
