/* Append-only: never change a script that was released, add the next one. The dialect is what
 * SQLite and PostgreSQL share, but for the BLOB type's name, which a driver may replace. */
#include "base/macros.h"
#include "store/driver_internal.h"

static const char version_1[] =
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);"

    "CREATE TABLE tokens ("
    " id TEXT PRIMARY KEY, name TEXT NOT NULL, role BIGINT NOT NULL, hash BLOB NOT NULL UNIQUE,"
    " one_time BIGINT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,"
    " last_used BIGINT NOT NULL, ended_at BIGINT NOT NULL);"

    "CREATE TABLE fleets ("
    " name TEXT PRIMARY KEY, description TEXT NOT NULL, grants BIGINT NOT NULL,"
    " created_at BIGINT NOT NULL);"

    "CREATE TABLE enrolments ("
    " id TEXT PRIMARY KEY, fleet TEXT NOT NULL REFERENCES fleets (name),"
    " hash BLOB NOT NULL UNIQUE, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,"
    " note TEXT NOT NULL, used_at BIGINT NOT NULL, device TEXT);"

    "CREATE TABLE devices ("
    " id TEXT PRIMARY KEY, name TEXT NOT NULL, fleet TEXT NOT NULL REFERENCES fleets (name),"
    " state BIGINT NOT NULL, enrolled_at BIGINT NOT NULL, last_seen BIGINT NOT NULL,"
    " kem_key_id BLOB NOT NULL, kem_public_key BLOB NOT NULL, agent_version TEXT NOT NULL,"
    " separation BIGINT NOT NULL, running BLOB, status TEXT NOT NULL, reason TEXT NOT NULL);"
    "CREATE INDEX devices_fleet ON devices (fleet, id);"
    "CREATE INDEX devices_kem ON devices (kem_key_id);"

    "CREATE TABLE certificates ("
    " serial TEXT PRIMARY KEY, device TEXT NOT NULL REFERENCES devices (id),"
    " issued_at BIGINT NOT NULL, not_after BIGINT NOT NULL);"
    "CREATE INDEX certificates_device ON certificates (device, not_after);"

    "CREATE TABLE publishers ("
    " key_id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, public_key TEXT NOT NULL,"
    " models TEXT NOT NULL, created_at BIGINT NOT NULL);"

    "CREATE TABLE uploads ("
    " id TEXT PRIMARY KEY, owner TEXT NOT NULL, state BIGINT NOT NULL, size BIGINT NOT NULL,"
    " sha256 BLOB NOT NULL, part_size BIGINT NOT NULL, parts BIGINT NOT NULL,"
    " created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, package BLOB);"
    "CREATE TABLE upload_parts ("
    " upload TEXT NOT NULL REFERENCES uploads (id), part BIGINT NOT NULL, sha256 BLOB NOT NULL,"
    " PRIMARY KEY (upload, part));"

    "CREATE TABLE packages ("
    " h BLOB PRIMARY KEY, seq BIGINT NOT NULL UNIQUE, blob_sha256 BLOB NOT NULL,"
    " blob_size BIGINT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,"
    " format TEXT NOT NULL, sequence BIGINT NOT NULL, floor BIGINT NOT NULL,"
    " created_at BIGINT NOT NULL, not_before BIGINT NOT NULL, not_after BIGINT NOT NULL,"
    " fleets TEXT NOT NULL, signers TEXT NOT NULL, recipients BIGINT NOT NULL,"
    " vault BIGINT NOT NULL, uploaded_at BIGINT NOT NULL, uploaded_by TEXT NOT NULL);"
    "CREATE INDEX packages_blob ON packages (blob_sha256);"
    "CREATE TABLE package_recipients ("
    " h BLOB NOT NULL REFERENCES packages (h), kem_key_id BLOB NOT NULL,"
    " PRIMARY KEY (h, kem_key_id));"

    "CREATE TABLE grants ("
    " h BLOB NOT NULL REFERENCES packages (h), kem_key_id BLOB NOT NULL, granter BLOB NOT NULL,"
    " vault BIGINT NOT NULL, issued_at BIGINT NOT NULL, not_after BIGINT NOT NULL,"
    " document BLOB NOT NULL, PRIMARY KEY (h, kem_key_id));"

    "CREATE TABLE deployments ("
    " id TEXT PRIMARY KEY, seq BIGINT NOT NULL UNIQUE, h BLOB NOT NULL REFERENCES packages (h),"
    " fleet TEXT NOT NULL REFERENCES fleets (name), device TEXT REFERENCES devices (id),"
    " allow_rollback BIGINT NOT NULL, state BIGINT NOT NULL, created_at BIGINT NOT NULL,"
    " created_by TEXT NOT NULL, document BLOB NOT NULL, document_sha256 BLOB NOT NULL,"
    " document_at BIGINT NOT NULL);"
    "CREATE INDEX deployments_fleet ON deployments (fleet, seq);"

    "CREATE TABLE updates ("
    " deployment TEXT NOT NULL REFERENCES deployments (id),"
    " device TEXT NOT NULL REFERENCES devices (id), deployment_seq BIGINT NOT NULL,"
    " state BIGINT NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL, seq BIGINT NOT NULL,"
    " updated_at BIGINT NOT NULL, PRIMARY KEY (deployment, device));"
    "CREATE INDEX updates_device ON updates (device, deployment_seq);"

    "CREATE TABLE audit ("
    " seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL, name TEXT NOT NULL,"
    " address TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL, package BLOB,"
    " outcome TEXT NOT NULL, detail TEXT NOT NULL, prev_hash BLOB NOT NULL,"
    " hash BLOB NOT NULL);"
    "CREATE INDEX audit_package ON audit (package, seq);"
    "CREATE INDEX audit_action ON audit (action, seq);";

/* The level of protection that a device's worker has, as its agent says. */
static const char version_2[] =
    "ALTER TABLE devices ADD COLUMN protection TEXT NOT NULL DEFAULT '';";

/* What ran on a device outlives the update that brought it, which something newer ends: whether the
 * device said that it ran, and the state the update was in when it was ended. 6 is "running". */
static const char version_3[] =
    "ALTER TABLE updates ADD COLUMN ran BIGINT NOT NULL DEFAULT 0;"
    "ALTER TABLE updates ADD COLUMN ended_from BIGINT NOT NULL DEFAULT 0;"
    "UPDATE updates SET ran = 1 WHERE state = 6;";

const char *const tg_migrations[] = {version_1, version_2, version_3};
const size_t tg_migrations_n = TG_ARRAY_LEN(tg_migrations);
