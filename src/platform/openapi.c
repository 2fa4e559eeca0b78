/* The OpenAPI 3.1 document: paths from the route table, schemas from the wire's field tables. */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "codec/json.h"
#include "platform/route.h"
#include "wire/common.h"

#define P(...) TG_TRY(tg_buf_printf(out, __VA_ARGS__))

static enum tg_rc quoted(struct tg_buf *out, const char *s)
{
    return tg_json_quote(out, tg_bytes_str(s));
}

/* ---- schemas ---- */

static const char *name_of(const struct tg_jschema *s)
{
    for (size_t i = 0; i < tg_wire_schemas_n; i++)
        if (tg_wire_schemas[i].schema == s)
            return tg_wire_schemas[i].name;
    return NULL;
}

static enum tg_rc ref(struct tg_buf *out, const char *name)
{
    return tg_buf_printf(out, "{\"$ref\":\"#/components/schemas/%s\"}", name);
}

static enum tg_rc enum_values(struct tg_buf *out, const char *const *names)
{
    P("{\"type\":\"string\",\"enum\":[");
    for (size_t i = 0; names[i] != NULL; i++) {
        if (i != 0)
            P(",");
        TG_TRY(quoted(out, names[i]));
    }
    P("]}");
    return TG_OK;
}

#define LENGTHS ",\"minLength\":%" PRIu64 ",\"maxLength\":%" PRIu64

static uint64_t b64_len(uint64_t n)
{
    return (n * 4 + 2) / 3;
}

static enum tg_rc property(struct tg_buf *out, const struct tg_jfield *f)
{
    switch (f->type) {
    case TG_JT_STR:
        P("{\"type\":\"string\"" LENGTHS "}", f->min, f->max);
        return TG_OK;
    case TG_JT_U64:
        P("{\"type\":\"integer\",\"minimum\":%" PRIu64 ",\"maximum\":%" PRIu64 "}", f->min, f->max);
        return TG_OK;
    case TG_JT_BOOL:
        P("{\"type\":\"boolean\"}");
        return TG_OK;
    case TG_JT_TIME:
        P("{\"type\":\"string\",\"format\":\"date-time\"}");
        return TG_OK;
    case TG_JT_FIXED:
    case TG_JT_BYTES:
        P("{\"type\":\"string\",\"contentEncoding\":\"base64url\"" LENGTHS "}",
          b64_len(f->type == TG_JT_FIXED ? f->max : f->min), b64_len(f->max));
        return TG_OK;
    case TG_JT_HEX:
        P("{\"type\":\"string\",\"pattern\":\"^[0-9a-f]{%" PRIu64 "}$\"}", 2 * f->max);
        return TG_OK;
    case TG_JT_ENUM:
        return enum_values(out, f->sub.names);
    case TG_JT_OBJ:
        return ref(out, name_of(f->sub.schema));
    case TG_JT_OBJS:
        P("{\"type\":\"array\",\"minItems\":%" PRIu64 ",\"maxItems\":%" PRIu64 ",\"items\":",
          f->min, f->max);
        TG_TRY(ref(out, name_of(f->sub.schema)));
        P("}");
        return TG_OK;
    case TG_JT_STRS:
        P("{\"type\":\"array\",\"minItems\":%" PRIu64 ",\"maxItems\":%" PRIu64
          ",\"items\":{\"type\":\"string\"}}",
          f->min, f->max);
        return TG_OK;
    case TG_JT_MAP:
        P("{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}}");
        return TG_OK;
    case TG_JT_RAW:
        P("{\"type\":\"object\"}");
        return TG_OK;
    }
    return TG_E_INTERNAL;
}

static enum tg_rc schema(struct tg_buf *out, const struct tg_jschema *s)
{
    const char *sep = "";

    P("{\"type\":\"object\",\"properties\":{");
    for (size_t i = 0; i < s->n; i++) {
        P("%s\"%s\":", i != 0 ? "," : "", s->fields[i].name);
        TG_TRY(property(out, &s->fields[i]));
    }
    P("},\"required\":[");
    for (size_t i = 0; i < s->n; i++) {
        if (s->fields[i].flags != TG_J_REQ)
            continue;
        P("%s\"%s\"", sep, s->fields[i].name);
        sep = ",";
    }
    P("]%s}", s->unknown == TG_J_REFUSE_UNKNOWN ? ",\"additionalProperties\":false" : "");
    return TG_OK;
}

/* ---- paths ---- */

static enum tg_rc content(struct tg_buf *out, const char *what)
{
    if (strcmp(what, "bytes") == 0) {
        P("{\"application/octet-stream\":{}}");
        return TG_OK;
    }
    if (strcmp(what, "text") == 0 || strcmp(what, "document") == 0) {
        P("{\"%s\":{}}", strcmp(what, "text") == 0 ? "text/plain" : "application/json");
        return TG_OK;
    }
    P("{\"application/json\":{\"schema\":");
    TG_TRY(ref(out, what));
    P("}}");
    return TG_OK;
}

static enum tg_rc parameters(struct tg_buf *out, const struct tg_route *r)
{
    const char *sep = "";

    P("\"parameters\":[");
    for (const char *s = strchr(r->pattern, '{'); s != NULL; s = strchr(s, '{')) {
        s++;
        P("%s{\"name\":\"%.*s\",\"in\":\"path\",\"required\":true,\"schema\":{\"type\":\"string\"}"
          "}",
          sep, (int)strcspn(s, "}"), s);
        sep = ",";
    }
    for (const char *s = r->query; s != NULL && *s != '\0';) {
        size_t n = strcspn(s, " ");
        P("%s{\"name\":\"%.*s\",\"in\":\"query\",\"schema\":{\"type\":\"string\"}}", sep, (int)n,
          s);
        sep = ",";
        s += n + (s[n] == ' ');
    }
    P("]");
    return TG_OK;
}

static enum tg_rc roles(struct tg_buf *out, unsigned bits)
{
    const char *sep = "";

    P("\"x-roles\":[");
    for (unsigned i = 0; i < TG_ACCESS_COUNT; i++) {
        if ((bits & 1U << i) == 0)
            continue;
        P("%s\"%s\"", sep, tg_access_names[i]);
        sep = ",";
    }
    P("%s]", (bits & TG_MAY_DEVICE) != 0 ? "\"device\"" : "");
    return TG_OK;
}

static enum tg_rc operation(struct tg_buf *out, const struct tg_route *r)
{
    P("\"summary\":");
    TG_TRY(quoted(out, r->summary));
    P(",");
    TG_TRY(parameters(out, r));
    P(",\"x-max-body\":%" PRIu64 ",\"x-listener\":\"%s\",", r->body_max,
      (r->listeners & TG_LISTEN_PEOPLE) != 0 ? "people" : "devices");
    if (r->action != NULL)
        P("\"x-audit-action\":\"%s\",", r->action);
    TG_TRY(roles(out, r->roles));
    P(",\"security\":[%s]", r->roles == TG_MAY_ALL            ? "{}"
                            : (r->roles & TG_MAY_DEVICE) != 0 ? "{\"deviceCertificate\":[]}"
                                                              : "{\"bearer\":[]}");
    if (r->in != NULL) {
        P(",\"requestBody\":{\"required\":true,\"content\":");
        TG_TRY(content(out, r->in));
        P("}");
    }
    P(",\"responses\":{\"%u\":{\"description\":\"done\"", r->status);
    if (r->out != NULL) {
        P(",\"content\":");
        TG_TRY(content(out, r->out));
    }
    P("},\"default\":{\"$ref\":\"#/components/responses/problem\"}}");
    return TG_OK;
}

static const char *lower_method(enum tg_http_method m)
{
    static const char *const names[] = {"get", "head", "post", "put", "patch", "delete"};

    return m < TG_ARRAY_LEN(names) ? names[m] : "get";
}

static bool first_of_path(size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (strcmp(tg_routes[i].pattern, tg_routes[at].pattern) == 0)
            return false;
    return true;
}

static enum tg_rc paths(struct tg_buf *out)
{
    const char *sep = "";

    for (size_t i = 0; i < tg_routes_n; i++) {
        const char *inner = "";
        if (!first_of_path(i))
            continue;
        P("%s\"%s\":{", sep, tg_routes[i].pattern);
        sep = ",";
        for (size_t j = i; j < tg_routes_n; j++) {
            if (strcmp(tg_routes[i].pattern, tg_routes[j].pattern) != 0)
                continue;
            P("%s\"%s\":{", inner, lower_method(tg_routes[j].method));
            TG_TRY(operation(out, &tg_routes[j]));
            P("}");
            inner = ",";
        }
        P("}");
    }
    return TG_OK;
}

TG_RC tg_openapi_make(struct tg_buf *out, struct tg_err *err)
{
    P("{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"TensorGuard platform\",\"version\":\"%s\","
      "\"license\":{\"name\":\"Apache-2.0\",\"identifier\":\"Apache-2.0\"}},\"paths\":{",
      TG_VERSION);
    TG_TRY(paths(out));
    P("},\"components\":{\"securitySchemes\":{"
      "\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\"},"
      "\"deviceCertificate\":{\"type\":\"mutualTLS\"}},"
      "\"responses\":{\"problem\":{\"description\":\"problem details (RFC 9457)\",\"content\":{"
      "\"application/problem+json\":{\"schema\":{\"$ref\":\"#/components/schemas/problem\"}}}}},"
      "\"schemas\":{");
    for (size_t i = 0; i < tg_wire_schemas_n; i++) {
        P("%s\"%s\":", i != 0 ? "," : "", tg_wire_schemas[i].name);
        TG_TRY(schema(out, tg_wire_schemas[i].schema));
    }
    P("}}}");
    return tg_json_check(tg_buf_view(out), "openapi", err);
}
