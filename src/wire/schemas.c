#include "wire/access.h"
#include "wire/deploy.h"
#include "wire/device.h"
#include "wire/fleet.h"
#include "wire/package.h"

#define ROW(n)                                                                                     \
    {                                                                                              \
#n, &tg_wire_##n                                                                           \
    }

const struct tg_wire_schema tg_wire_schemas[] = {
    ROW(problem),
    ROW(login),
    ROW(token_new),
    ROW(token),
    ROW(tokens),
    ROW(platform),
    ROW(audit_row),
    ROW(audit),
    ROW(audit_check),
    ROW(fleet_new),
    ROW(fleet),
    ROW(fleets),
    ROW(enrolment_token_new),
    ROW(enrolment_token),
    ROW(enrolment_tokens),
    ROW(device),
    ROW(devices),
    ROW(revoke),
    ROW(kem_key),
    ROW(kem_keys),
    ROW(publisher_new),
    ROW(publisher),
    ROW(publishers),
    ROW(upload_new),
    ROW(upload),
    ROW(part_range),
    ROW(part),
    ROW(model),
    ROW(package),
    ROW(packages),
    ROW(grant),
    ROW(grants),
    ROW(deployment_new),
    ROW(deployment),
    ROW(deployments),
    ROW(update),
    ROW(update_counts),
    ROW(enrol),
    ROW(enrolled),
    ROW(renew),
    ROW(renewed),
    ROW(checkin),
    ROW(directive),
    ROW(directions),
    ROW(report),
    ROW(reported),
};
const size_t tg_wire_schemas_n = TG_ARRAY_LEN(tg_wire_schemas);
