/* The route table (docs/api.md). */
#include "platform/handlers.h"
#include "platform/route.h"

#define A TG_API_PREFIX
#define D TG_DEVICE_PREFIX
#define JSON TG_WIRE_BODY_MAX
#define PEOPLE TG_LISTEN_PEOPLE
#define DEVICES TG_LISTEN_DEVICES
#define GET TG_HTTP_GET
#define POST TG_HTTP_POST
#define PUT TG_HTTP_PUT
#define DELETE TG_HTTP_DELETE
#define PAGE "limit after"

/* clang-format off */
const struct tg_route tg_routes[] = {
    /* method, listeners, path, roles, body, audit action, in, out, status, query, summary, handler */
    {GET, PEOPLE | DEVICES, "/healthz", TG_MAY_ALL, 0, NULL, NULL, "document", 200, NULL, "Is it up", tg_h_health},
    {GET, PEOPLE, "/metrics", TG_MAY_READ, 0, NULL, NULL, "text", 200, NULL, "Prometheus metrics", tg_h_metrics},
    {GET, PEOPLE, A "/openapi.json", TG_MAY_ALL, 0, NULL, NULL, "document", 200, NULL, "This document", tg_h_openapi},
    {POST, PEOPLE, A "/login", TG_MAY_ALL, JSON, "token.login", "login", "token", 201, NULL, "Exchange the one-time administrator token", tg_h_login},
    {GET, PEOPLE, A "/me", TG_MAY_READ, 0, NULL, NULL, "token", 200, NULL, "Whose token this is", tg_h_me},
    {GET, PEOPLE, A "/platform", TG_MAY_READ, 0, NULL, NULL, "platform", 200, NULL, "Version, addresses, keys", tg_h_platform},
    {POST, PEOPLE, A "/tokens", TG_MAY_ADMIN, JSON, "token.create", "token_new", "token", 201, NULL, "Make a token", tg_h_token_create},
    {GET, PEOPLE, A "/tokens", TG_MAY_ADMIN, 0, NULL, NULL, "tokens", 200, PAGE, "List tokens", tg_h_token_list},
    {DELETE, PEOPLE, A "/tokens/{token}", TG_MAY_ADMIN, 0, "token.delete", NULL, NULL, 204, NULL, "Delete a token", tg_h_token_delete},
    {POST, PEOPLE, A "/fleets", TG_MAY_OPERATE, JSON, "fleet.create", "fleet_new", "fleet", 201, NULL, "Make a fleet", tg_h_fleet_create},
    {GET, PEOPLE, A "/fleets", TG_MAY_READ, 0, NULL, NULL, "fleets", 200, PAGE, "List fleets", tg_h_fleet_list},
    {GET, PEOPLE, A "/fleets/{fleet}", TG_MAY_READ, 0, NULL, NULL, "fleet", 200, NULL, "Show a fleet", tg_h_fleet_get},
    {PUT, PEOPLE, A "/fleets/{fleet}", TG_MAY_OPERATE, JSON, "fleet.change", "fleet_new", "fleet", 200, NULL, "Change a fleet", tg_h_fleet_change},
    {GET, PEOPLE, A "/fleets/{fleet}/kem-keys", TG_MAY_READ, 0, NULL, NULL, "kem_keys", 200, PAGE, "KEM keys of a fleet's active devices", tg_h_kem_keys},
    {POST, PEOPLE, A "/enrolment-tokens", TG_MAY_OPERATE, JSON, "enrolment.create", "enrolment_token_new", "enrolment_token", 201, NULL, "Make an enrolment token", tg_h_enrolment_create},
    {GET, PEOPLE, A "/enrolment-tokens", TG_MAY_OPERATE, 0, NULL, NULL, "enrolment_tokens", 200, PAGE, "List enrolment tokens", tg_h_enrolment_list},
    {DELETE, PEOPLE, A "/enrolment-tokens/{enrolment_token}", TG_MAY_OPERATE, 0, "enrolment.delete", NULL, NULL, 204, NULL, "Delete an unused enrolment token", tg_h_enrolment_delete},
    {GET, PEOPLE, A "/devices", TG_MAY_READ, 0, NULL, NULL, "devices", 200, PAGE " fleet", "List devices", tg_h_device_list},
    {GET, PEOPLE, A "/devices/{device}", TG_MAY_READ, 0, NULL, NULL, "device", 200, NULL, "Show a device", tg_h_device_get},
    {POST, PEOPLE, A "/devices/{device}/revoke", TG_MAY_OPERATE, JSON, "device.revoke", "revoke", "device", 200, NULL, "Revoke a device", tg_h_device_revoke},
    {POST, PEOPLE, A "/publishers", TG_MAY_ADMIN, JSON, "publisher.add", "publisher_new", "publisher", 201, NULL, "Register an author's signing key", tg_h_publisher_add},
    {GET, PEOPLE, A "/publishers", TG_MAY_READ, 0, NULL, NULL, "publishers", 200, PAGE, "List publishers", tg_h_publisher_list},
    {DELETE, PEOPLE, A "/publishers/{publisher}", TG_MAY_ADMIN, 0, "publisher.remove", NULL, NULL, 204, NULL, "Remove a publisher", tg_h_publisher_remove},
    {POST, PEOPLE, A "/uploads", TG_MAY_PUBLISH, JSON, "upload.create", "upload_new", "upload", 201, NULL, "Begin an upload", tg_h_upload_create},
    {GET, PEOPLE, A "/uploads/{upload}", TG_MAY_PUBLISH, 0, NULL, NULL, "upload", 200, NULL, "What an upload still lacks", tg_h_upload_get},
    {PUT, PEOPLE, A "/uploads/{upload}/parts/{part}", TG_MAY_PUBLISH, TG_WIRE_PART_MAX, "upload.part", "bytes", "part", 200, NULL, "Upload one part", tg_h_upload_part},
    {POST, PEOPLE, A "/uploads/{upload}/complete", TG_MAY_PUBLISH, JSON, "package.accept", NULL, "package", 201, NULL, "Check an upload and accept the package", tg_h_upload_complete},
    {DELETE, PEOPLE, A "/uploads/{upload}", TG_MAY_PUBLISH, 0, "upload.delete", NULL, NULL, 204, NULL, "Give an upload up", tg_h_upload_delete},
    {GET, PEOPLE, A "/packages", TG_MAY_READ, 0, NULL, NULL, "packages", 200, PAGE " model", "List packages, newest first", tg_h_package_list},
    {GET, PEOPLE, A "/packages/{package}", TG_MAY_READ, 0, NULL, NULL, "package", 200, NULL, "Show a package by its H", tg_h_package_get},
    {GET, PEOPLE, A "/packages/{package}/grants", TG_MAY_READ, 0, NULL, NULL, "grants", 200, PAGE, "List a package's grants", tg_h_grant_list},
    {PUT, PEOPLE, A "/packages/{package}/grants/{kem_key}", TG_MAY_PUBLISH, TG_WIRE_GRANT_MAX, "grant.put", "document", "grant", 200, NULL, "Put an author's grant", tg_h_grant_put},
    {GET, PEOPLE, A "/blobs/{blob}", TG_MAY_READ, 0, "package.download", NULL, "bytes", 200, NULL, "Download a package file", tg_h_blob_get},
    {POST, PEOPLE, A "/deployments", TG_MAY_OPERATE, JSON, "deployment.create", "deployment_new", "deployment", 201, NULL, "Deploy a package", tg_h_deployment_create},
    {GET, PEOPLE, A "/deployments", TG_MAY_READ, 0, NULL, NULL, "deployments", 200, PAGE " package fleet", "List deployments, newest first", tg_h_deployment_list},
    {GET, PEOPLE, A "/deployments/{deployment}", TG_MAY_READ, 0, NULL, NULL, "deployment", 200, PAGE, "Show a deployment and its devices", tg_h_deployment_get},
    {DELETE, PEOPLE, A "/deployments/{deployment}", TG_MAY_OPERATE, 0, "deployment.cancel", NULL, "deployment", 200, NULL, "Cancel a deployment", tg_h_deployment_cancel},
    {GET, PEOPLE, A "/audit", TG_MAY_READ, 0, NULL, NULL, "audit", 200, PAGE " package action actor", "Read the audit log", tg_h_audit_list},
    {GET, PEOPLE, A "/audit/verify", TG_MAY_READ, 0, NULL, NULL, "audit_check", 200, NULL, "Check the audit log's hash chain", tg_h_audit_verify},

    {POST, DEVICES, D "/enrol", TG_MAY_ALL, JSON, "device.enrol", "enrol", "enrolled", 201, NULL, "Enrol a device", tg_h_enrol},
    {POST, DEVICES, D "/renew", TG_MAY_DEVICE, JSON, "device.renew", "renew", "renewed", 200, NULL, "Renew the certificate", tg_h_renew},
    {POST, DEVICES, D "/checkin", TG_MAY_DEVICE, JSON, NULL, "checkin", "directions", 200, NULL, "Say how it is, hear what to do", tg_h_checkin},
    {GET, DEVICES, D "/blobs/{blob}", TG_MAY_DEVICE, 0, NULL, NULL, "bytes", 200, NULL, "Download a deployed package file", tg_h_device_blob},
    {GET, DEVICES, D "/packages/{package}/grant", TG_MAY_DEVICE, 0, "grant.fetch", NULL, "document", 200, NULL, "This device's grant", tg_h_device_grant},
    {POST, DEVICES, D "/updates/{deployment}/reports", TG_MAY_DEVICE, JSON, "update.report", "report", "reported", 200, NULL, "Report an update's state", tg_h_report},
};
/* clang-format on */
const size_t tg_routes_n = TG_ARRAY_LEN(tg_routes);
