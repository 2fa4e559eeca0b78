/* Every handler of the route table. */
#ifndef TG_PLATFORM_HANDLERS_H
#define TG_PLATFORM_HANDLERS_H

#include "platform/call.h"

/* h_access.c */
tg_route_fn tg_h_health, tg_h_metrics, tg_h_openapi, tg_h_login, tg_h_me, tg_h_platform;
tg_route_fn tg_h_token_create, tg_h_token_list, tg_h_token_delete;
/* h_audit.c */
tg_route_fn tg_h_audit_list, tg_h_audit_verify;
/* h_fleet.c */
tg_route_fn tg_h_fleet_create, tg_h_fleet_list, tg_h_fleet_get, tg_h_fleet_change, tg_h_kem_keys;
tg_route_fn tg_h_enrolment_create, tg_h_enrolment_list, tg_h_enrolment_delete;
/* h_devices.c */
tg_route_fn tg_h_device_list, tg_h_device_get, tg_h_device_revoke;
/* h_publish.c */
tg_route_fn tg_h_publisher_add, tg_h_publisher_list, tg_h_publisher_remove;
tg_route_fn tg_h_package_list, tg_h_package_get, tg_h_blob_get, tg_h_grant_list, tg_h_grant_put;
/* h_upload.c */
tg_route_fn tg_h_upload_create, tg_h_upload_get, tg_h_upload_part, tg_h_upload_delete;
/* h_complete.c */
tg_route_fn tg_h_upload_complete;
/* h_deploy.c */
tg_route_fn tg_h_deployment_create, tg_h_deployment_list, tg_h_deployment_get;
tg_route_fn tg_h_deployment_cancel;
/* h_agent.c: the devices' listener */
tg_route_fn tg_h_enrol, tg_h_renew, tg_h_checkin;
/* h_fetch.c */
tg_route_fn tg_h_device_blob, tg_h_device_grant, tg_h_report;

/* Row -> wire, shared by handlers. */
struct tg_wire_package;
struct tg_package_row;
TG_RC tg_package_to_wire(struct tg_call *c, const struct tg_package_row *row,
                         struct tg_wire_package *out, struct tg_err *err);

/* Numbers of the states that end updates. */
struct tg_update_ends;
extern const struct tg_update_ends tg_ends;

#endif
