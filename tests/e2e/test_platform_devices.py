"""Devices: enrolment, certificates of every wrong kind, renewal, revoking on an open connection, grants, deployments, reports."""
import hashlib
import json
import os
import sqlite3
import ssl
import time

import pytest

import programs
import tg


@pytest.fixture
def fleet(platform):
    platform.admin().post("/api/v1/fleets", {"name": "line-1"})
    return "line-1"


@pytest.fixture
def device(platform, fleet, tmp_path):
    return tg.Device(tmp_path / "device", platform, fleet).enrol()


@pytest.fixture
def published(platform, author, tmp_path):
    """Publish a package whose recipients include the vault (or others); returns its answer."""
    platform.admin().post("/api/v1/publishers", {"name": "author", "public_key": (author / "signing.pub").read_text()})

    def publish(recipients=None, **options):
        recipients = [platform.dir / "vault.pub"] if recipients is None else recipients
        return tg.upload(platform.admin(), tg.make_package(tmp_path, author, recipients=recipients, **options)).json
    return publish


def deploy(platform, package, expect=201, **target):
    return platform.admin().post("/api/v1/deployments", {"package": package["header_sha256"], **target}, expect=expect)


def show(platform, deployment):
    return platform.admin().get(f"/api/v1/deployments/{deployment['id']}").json


# ---- enrolment ----

def test_enrol(platform, fleet, tmp_path):
    admin = platform.admin()
    token = admin.post("/api/v1/enrolment-tokens", {"fleet": fleet, "note": "for the door"}).json
    device = tg.Device(tmp_path / "d", platform, fleet, name="door").enrol(token["token"])
    text = tg.run(programs.openssl(), "x509", "-in", device.cert, "-noout", "-text").stdout
    assert f"CN = {device.id}" in text or f"CN={device.id}" in text
    assert "prime256v1" in text and "TLS Web Client Authentication" in text
    days = tg.run(programs.openssl(), "x509", "-in", device.cert, "-noout", "-checkend", str(29 * 86400), ok=None)
    assert days.returncode == 0
    assert tg.run(programs.openssl(), "x509", "-in", device.cert, "-noout", "-checkend", str(31 * 86400), ok=None).returncode != 0
    facts = admin.get("/api/v1/platform").json
    assert device.enrolled["platform_key_id"] == facts["platform_key_id"]
    shown = admin.get(f"/api/v1/devices/{device.id}").json
    assert shown["fleet"] == fleet and shown["state"] == "active" and shown["name"] == "door"
    assert shown["kem_key_id"] == device.kem_key_id and "last_seen" not in shown
    keys = admin.get(f"/api/v1/fleets/{fleet}/kem-keys").json["items"]
    assert [(k["device"], k["kem_key_id"]) for k in keys] == [(device.id, device.kem_key_id)]
    assert tg.b64url(device.kem_public_key) == keys[0]["kem_public_key"]
    used = admin.get("/api/v1/enrolment-tokens").json["items"][0]
    assert used["state"] == "used" and used["device"] == device.id and "token" not in used
    assert device.checkin(running="ab" * 32, status="hello").json["deployments"] == []
    beat = tg.wait_for("the heartbeat", lambda: admin.get(f"/api/v1/devices/{device.id}").json.get("status") == "hello")
    assert beat
    # A device only sees its own listener.
    device.client().get("/api/v1/devices", expect=404)


def test_enrolment_token_twice(platform, fleet, tmp_path):
    admin = platform.admin()
    token = admin.post("/api/v1/enrolment-tokens", {"fleet": fleet}).json
    first = tg.Device(tmp_path / "a", platform, fleet).enrol(token["token"])
    second = tg.Device(tmp_path / "b", platform, fleet)
    second.make_keys()
    answer = platform.device_client().post("/device/v1/enrol", second.enrol_body(token["token"]), expect=401)
    assert answer.slug == "unauthenticated" and first.id in answer.json["detail"]
    rows = admin.get("/api/v1/audit?action=device.enrol").json["items"]
    assert [(r["outcome"], r["target"]) for r in rows] == [("ok", f"device:{first.id}"),
                                                          ("refused", f"enrolment:{token['id']}")]
    assert len(admin.get("/api/v1/devices").json["items"]) == 1


def test_enrolment_refusals(platform, fleet, tmp_path):
    admin = platform.admin()
    admin.post("/api/v1/fleets", {"name": "line-2"})
    device = tg.Device(tmp_path / "d", platform, "line-2")
    device.make_keys()
    client = platform.device_client()
    token = admin.post("/api/v1/enrolment-tokens", {"fleet": fleet}).json
    good = device.enrol_body(token["token"])
    tries = [
        ({"token": "tge_nonsense"}, 401, "unknown"),
        ({}, 403, "another fleet"),
        ({"fleet": fleet, "csr": "junk"}, 400, "csr"),
        ({"fleet": fleet, "csr": good["csr"].replace("A", "B")}, 400, "csr"),
        ({"fleet": fleet, "kem_public_key": tg.b64url(b"\xff" * 1216)}, 400, "kem_public_key"),
        ({"fleet": fleet, "kem_public_key": "AAAA"}, 400, "kem_public_key"),
        ({"fleet": fleet, "name": "a/b"}, 400, "name"),
    ]
    for change, status, says in tries:
        answer = client.post("/device/v1/enrol", {**good, **change}, expect=status)
        assert says in answer.json["detail"], answer
    # None of that used the token up.
    client.post("/device/v1/enrol", {**good, "fleet": fleet})
    expired = admin.post("/api/v1/enrolment-tokens", {"fleet": fleet}).json
    db = sqlite3.connect(platform.dir / "platform.db")
    with db:
        db.execute("UPDATE enrolments SET expires_at = 1 WHERE id = ?", (expired["id"],))
    db.close()
    answer = client.post("/device/v1/enrol", {**good, "fleet": fleet, "token": expired["token"]}, expect=401)
    assert "expired" in answer.json["detail"]
    gone = admin.post("/api/v1/enrolment-tokens", {"fleet": fleet}).json
    admin.delete(f"/api/v1/enrolment-tokens/{gone['id']}")
    client.post("/device/v1/enrol", {**good, "fleet": fleet, "token": gone["token"]}, expect=401)
    admin.post("/api/v1/enrolment-tokens", {"fleet": "nowhere"}, expect=404)


# ---- certificates ----

def handshake_refused(platform, cert, key):
    """With TLS 1.3 the refusal of a client certificate arrives with the first read."""
    client = platform.device_client(cert, key)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        client.connect()
        client.post("/device/v1/checkin", {"agent_version": "1", "separation": False}, expect=None)


def self_signed(folder, subject, *more):
    key, cert = folder / "own.key", folder / "own.crt"
    tg.run(programs.openssl(), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
           "-keyout", key, "-out", cert, "-subj", subject, "-config", "/dev/null", *more)
    return cert, key


def test_self_made_certificate(platform, device, tmp_path):
    cert, key = self_signed(tmp_path, f"/CN={device.id}")
    handshake_refused(platform, cert, key)
    device.checkin()  # the real one still goes


def test_foreign_ca_with_the_same_name(platform, device, tmp_path):
    """Someone else's CA that calls itself as ours does issues a certificate for our device's id."""
    ca, ca_key = self_signed(tmp_path, "/CN=TensorGuard device CA")
    csr = tmp_path / "c.csr"
    key = tmp_path / "c.key"
    csr.write_text(tg.make_csr(key, device.id))
    cert = tmp_path / "c.crt"
    tg.run(programs.openssl(), "x509", "-req", "-in", csr, "-CA", ca, "-CAkey", ca_key, "-out", cert, "-days", "5")
    handshake_refused(platform, cert, key)


def test_our_own_ca_but_never_recorded(platform, device):
    """A certificate of the device CA that is not in the database (a stolen CA key, say) is refused on every request."""
    db = sqlite3.connect(platform.dir / "platform.db")
    with db:
        db.execute("DELETE FROM certificates")
    db.close()
    assert device.checkin(expect=403).slug == "certificate"


def test_expired_certificate(platform, device):
    """By the database's record, on a connection that is open; the handshake's own check of dates is OpenSSL's."""
    client = device.client()
    device.checkin(client)
    db = sqlite3.connect(platform.dir / "platform.db")
    with db:
        db.execute("UPDATE certificates SET not_after = ?", (int(time.time()) - 1,))
    db.close()
    answer = device.checkin(client, expect=403)
    assert answer.slug == "certificate" and "expired" in answer.json["detail"]


def test_server_certificate_is_no_client_certificate(platform, device, tmp_path):
    """The two CAs do not vouch for each other's certificates."""
    context = ssl.create_default_context(cafile=str(platform.dir / "device-ca.pem"))
    raw = tg.free_socket(platform.device_url)
    with pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_revoking_bites_on_open_connections(platform, device):
    client = device.client()
    device.checkin(client)
    socket = client.connection.sock
    admin = platform.admin()
    admin.post(f"/api/v1/devices/{device.id}/revoke", {"reason": "x"}, headers={"If-Match": '"old"'}, expect=412)
    assert admin.post(f"/api/v1/devices/{device.id}/revoke", {"reason": "stolen"}, expect=200).json["state"] == "revoked"
    answer = device.checkin(client, expect=403)
    assert client.connection.sock is socket, "the same connection"
    assert answer.slug == "device-revoked"
    for path in (f"/device/v1/blobs/{'ab' * 32}", f"/device/v1/packages/{'ab' * 32}/grant"):
        assert client.get(path, expect=403).slug == "device-revoked"
    device.checkin(expect=403)  # and on a new one
    client.post("/device/v1/renew", {"csr": device.csr}, expect=403)
    assert admin.get(f"/api/v1/devices/{device.id}").json["reason"] == "stolen"
    assert admin.post(f"/api/v1/devices/{device.id}/revoke", expect=409).slug == "conflict"
    assert admin.get("/api/v1/fleets/line-1/kem-keys").json["items"] == []


def test_renew(platform, device):
    before = platform.admin().get(f"/api/v1/devices/{device.id}").json["certificate_serial"]
    old = device.client()
    new_key = device.dir / "new.key"
    answer = old.post("/device/v1/renew", {"csr": tg.make_csr(new_key, "whatever")}, expect=200).json
    new_cert = device.dir / "new.crt"
    new_cert.write_text(answer["certificate"])
    device.checkin(platform.device_client(new_cert, new_key))
    device.checkin(old)  # until it expires: the answer might have been lost
    serials = tg.run(programs.openssl(), "x509", "-in", new_cert, "-noout", "-serial", "-subject").stdout
    assert device.id in serials and before.upper() not in serials
    old.post("/device/v1/renew", {"csr": "junk"}, expect=400)
    for _ in range(6):
        old.post("/device/v1/renew", {"csr": device.csr}, expect=200)
    assert old.post("/device/v1/renew", {"csr": device.csr}, expect=409).slug == "conflict"


def test_tls_is_13_with_the_hybrid_group(platform):
    for url in (platform.api_url, platform.device_url):
        host = url.split("//")[1]
        done = tg.run(programs.openssl(), "s_client", "-connect", host, "-CAfile", platform.ca, "-brief", input="", ok=None)
        text = done.stdout + done.stderr
        assert "TLSv1.3" in text and "X25519MLKEM768" in text and "Verification: OK" in text, text
        old = tg.run(programs.openssl(), "s_client", "-connect", host, "-CAfile", platform.ca, "-tls1_2", input="", ok=None)
        assert old.returncode != 0


# ---- deployments ----

def test_from_deployment_to_running(platform, device, published):
    admin = platform.admin()
    package = published(model_version="1")
    h = package["header_sha256"]
    assert package["vault"] is True
    blob, grant = f"/device/v1/blobs/{package['blob_sha256']}", f"/device/v1/packages/{h}/grant"
    client = device.client()
    client.get(blob, expect=404)  # not deployed: it does not exist for this device
    deployment = deploy(platform, package, fleet="line-1").json
    assert deployment["counts"]["pending"] == 1
    client.get(blob, expect=404)
    directions = device.checkin(client).json
    assert 1 <= directions["next_poll_s"] <= 2
    [todo] = directions["deployments"]
    assert todo["package"] == h and todo["blob_sha256"] == package["blob_sha256"] and todo["grant"] is True
    assert todo["update_state"] == "offered" and todo["seq"] == 0
    document = todo["document"]
    assert set(document) == {"deployment", "signatures"}
    again = device.checkin(client).json["deployments"][0]
    raw = device.checkin(client).body
    start = raw.index(b'"document":') + len(b'"document":')
    text = raw[start:raw.index(b"]}", start) + 2]
    held = device.checkin(client, have_document=hashlib.sha256(text).hexdigest()).json["deployments"][0]
    assert again["document"] == document and "document" not in held
    data = (platform.dir / "blobs" / package["blob_sha256"][:2] / package["blob_sha256"]).read_bytes()
    half = len(data) // 2
    assert client.get(blob, headers={"Range": f"bytes=0-{half - 1}"}, expect=206).body == data[:half]
    assert client.get(blob, headers={"Range": f"bytes={half}-", "If-Range": f'"{package["blob_sha256"]}"'},
                      expect=206).body == data[half:]
    granted = client.get(grant)
    facts = admin.get("/api/v1/platform").json
    [row] = admin.get(f"/api/v1/packages/{h}/grants").json["items"]
    assert row["vault"] is True and row["kem_key_id"] == device.kem_key_id and row["granter"] == facts["platform_key_id"]
    # The device can open the package with that grant, trusting the platform's key as a granter.
    for state in ("downloading", "downloaded", "verifying", "loading", "running"):
        reported = device.report(deployment["id"], state, client=client).json
        assert reported["applied"] and reported["state"] == state
    shown = show(platform, deployment)
    assert shown["counts"]["running"] == 1 and shown["updates"][0]["state"] == "running"
    assert admin.get(f"/api/v1/devices/{device.id}").json["update_state"] == "running"
    story = [(r["action"], r["actor"].split(":")[0]) for r in admin.get(f"/api/v1/audit?package={h}").json["items"]]
    assert story == [("package.accept", "token"), ("deployment.create", "token"), ("grant.vault", "device"),
                     ("deployment.offer", "device"), ("grant.fetch", "device"), ("update.report", "device"),
                     ("package.fetch", "device")] + [("update.report", "device")] * 4
    assert admin.get("/api/v1/audit/verify").json["ok"]
    assert b"signatures" in granted.body


def fetches(platform, package):
    rows = platform.admin().get(f"/api/v1/audit?package={package['header_sha256']}&action=package.fetch").json["items"]
    return [(r["actor"], r["target"], r["outcome"], r["detail"]) for r in rows]


def test_a_package_counts_as_fetched_when_its_device_has_it(platform, device, published):
    """As the agent does it: the end of the file first, then its front, and the rest only if it will have the package."""
    package = published()
    size, client = package["blob_size"], device.client()
    blob = f"/device/v1/blobs/{package['blob_sha256']}"
    refused = deploy(platform, package, fleet="line-1").json["id"]
    device.checkin(client)
    device.report(refused, "downloading", client=client)
    client.get(blob, headers={"Range": "bytes=-16384"}, expect=206)
    client.get(blob, headers={"Range": "bytes=0-999"}, expect=206)
    device.report(refused, "failed", code="EXPIRED", reason="the package has expired", client=client)
    assert fetches(platform, package) == []
    # Even all of its bytes are no proof that they arrived: the device says so.
    taken = deploy(platform, package, fleet="line-1").json["id"]
    device.checkin(client)
    device.report(taken, "downloading", client=client)
    client.get(blob)
    assert fetches(platform, package) == []
    one = [(f"device:{device.id}", f"device:{device.id}", "ok", f"it has all {size} bytes, says its report: downloaded")]
    seq = device.seq[taken] + 1
    for _ in range(2):  # the answer was lost: the same report again
        device.report(taken, "downloaded", seq=seq, client=client)
    device.seq[taken] = seq
    for state in ("verifying", "loading", "running", "rolled_back", "running"):
        device.report(taken, state, client=client)
    assert fetches(platform, package) == one
    # A damaged file is fetched once more; reports may skip states.
    device.report(taken, "failed", code="AUTH", reason="a chunk", client=client)
    device.report(taken, "downloading", client=client)
    device.report(taken, "running", client=client)
    assert fetches(platform, package)[1:] == [(*one[0][:3], f"it has all {size} bytes, says its report: running")]


def test_reports_are_idempotent_and_monotonic(platform, device, published):
    deployment = deploy(platform, published(), fleet="line-1").json["id"]
    device.report(deployment, "downloading", seq=1, expect=409)  # not offered yet
    device.checkin()
    assert device.report(deployment, "downloading", seq=1).json["applied"]
    assert device.report(deployment, "downloading", seq=1).json == {"seq": 1, "state": "downloading", "applied": False}
    device.report(deployment, "failed", seq=1, expect=409)  # the same number for something else
    assert device.report(deployment, "failed", seq=5, code="AUTH", reason="signature of naïve key").json["applied"]
    assert device.report(deployment, "downloading", seq=4).json == {"seq": 5, "state": "failed", "applied": False}
    [update] = show(platform, {"id": deployment})["updates"]
    assert update["code"] == "AUTH" and update["reason"] == "signature of naïve key" and update["seq"] == 5
    assert device.report(deployment, "running", seq=6).json["applied"]
    assert device.report(deployment, "downloading", seq=7, expect=409).slug == "conflict"
    for state in ("pending", "offered", "superseded", "cancelled"):
        assert device.report(deployment, state, seq=9, expect=400).slug == "bad-request"
    device.report(deployment, "nonsense", seq=9, expect=400)
    device.report("0" * 32, "running", seq=1, expect=404)
    assert device.report(deployment, "rolled_back", seq=10, code="INTERNAL", reason="crashed").json["applied"]
    assert device.checkin().json["deployments"][0]["seq"] == 10


def test_newer_deployment_supersedes_and_cancel_stops(platform, device, published):
    admin = platform.admin()
    one = deploy(platform, published(model_version="1"), fleet="line-1").json
    assert device.checkin().json["deployments"][0]["deployment_id"] == one["id"]
    second = published(model_version="2")
    two = deploy(platform, second, device=device.id, allow_rollback=True).json
    assert two["device"] == device.id and two["fleet"] == "line-1" and two["allow_rollback"] is True
    [todo] = device.checkin().json["deployments"]
    assert todo["deployment_id"] == two["id"]
    assert device.report(one["id"], "running", seq=1, expect=409).slug == "update-over"
    assert show(platform, one)["counts"]["superseded"] == 1
    etag = admin.get(f"/api/v1/deployments/{two['id']}").headers["ETag"]
    device.report(two["id"], "downloading", seq=1)
    stale = admin.delete(f"/api/v1/deployments/{two['id']}", headers={"If-Match": etag}, expect=412)
    assert stale.slug == "precondition"
    fresh = admin.get(f"/api/v1/deployments/{two['id']}").headers["ETag"]
    assert admin.delete(f"/api/v1/deployments/{two['id']}", headers={"If-Match": fresh}, expect=200).json["state"] == "cancelled"
    assert admin.delete(f"/api/v1/deployments/{two['id']}", expect=409).slug == "conflict"
    assert device.checkin().json["deployments"] == []
    device.client().get(f"/device/v1/blobs/{second['blob_sha256']}", expect=404)
    assert [d["id"] for d in admin.get("/api/v1/deployments").json["items"]] == [two["id"], one["id"]]
    assert admin.get(f"/api/v1/deployments?package={second['header_sha256']}").json["items"][0]["id"] == two["id"]
    late = tg.Device(device.dir / "late", platform, "line-1").enrol()
    assert late.checkin().json["deployments"][0]["deployment_id"] == one["id"]


def test_deployments_are_refused(platform, device, published):
    admin = platform.admin()
    package = published(not_after="2026-01-01T00:00:00Z")
    assert "expired" in deploy(platform, package, fleet="line-1", expect=409).json["detail"]
    package = published()
    deploy(platform, package, expect=400)
    deploy(platform, package, fleet="line-1", device=device.id, expect=400)
    deploy(platform, package, fleet="nowhere", expect=404)
    deploy(platform, package, device="0" * 32, expect=404)
    deploy(platform, {"header_sha256": "ab" * 32}, fleet="line-1", expect=404)
    admin.post(f"/api/v1/devices/{device.id}/revoke", expect=200)
    deploy(platform, package, device=device.id, expect=409)
    refused = [r for r in admin.get("/api/v1/audit?action=deployment.create").json["items"] if r["outcome"] == "refused"]
    assert len(refused) == 2


def test_author_grants(platform, device, published, author, stranger, tmp_path):
    """Neither device nor vault is a recipient: nothing is offered until the author grants."""
    admin = platform.admin()
    admin.post("/api/v1/publishers", {"name": "author", "public_key": (author / "signing.pub").read_text()}, expect=409)
    package = published(recipients=[author / "encryption.pub"])
    h = package["header_sha256"]
    deployment = deploy(platform, package, fleet="line-1").json
    assert device.checkin().json["deployments"] == []
    [update] = show(platform, deployment)["updates"]
    assert update["state"] == "pending" and "waits for a grant" in update["reason"]
    device.client().get(f"/device/v1/packages/{h}/grant", expect=404)
    blob = platform.dir / "blobs" / package["blob_sha256"][:2] / package["blob_sha256"]
    out = tmp_path / "g.tgrant"

    def grant(signer, recipient):
        out.unlink(missing_ok=True)
        tg.cli("grant", blob, "--key", author / "encryption.priv", "--signing-key", signer / "signing.priv",
               "--recipient", recipient, "--out", out, *(["--trust", author / "signing.pub"] if signer != author else []))
        return out.read_bytes()

    url = f"/api/v1/packages/{h}/grants/{device.kem_key_id}"
    publisher = platform.role("publisher")
    good = grant(author, device.dir / "encryption.pub")
    assert publisher.put(url, grant(stranger, device.dir / "encryption.pub"), expect=422).slug == "publisher-unknown"
    assert publisher.put(url, grant(author, author / "encryption.pub"), expect=422).slug == "package-invalid"
    assert publisher.put(url, b"{}", expect=422).slug == "package-invalid"
    assert publisher.put(url, good[:-9] + b'"' + good[-8:], expect=422)
    other = published()
    assert publisher.put(f"/api/v1/packages/{other['header_sha256']}/grants/{device.kem_key_id}", good,
                         expect=422).slug == "package-invalid"
    made = publisher.put(url, good).json
    assert made["vault"] is False
    [todo] = device.checkin().json["deployments"]
    assert todo["grant"] is True
    assert device.client().get(f"/device/v1/packages/{h}/grant").body == good
    assert publisher.put(url, bytes(65537), expect=413)


def test_another_publisher_cannot_displace_a_grant(platform, device, published, author, stranger, tmp_path):
    """Publishers who did not sign the package put grants only where nothing better stands or can be made."""
    admin, publisher = platform.admin(), platform.role("publisher")
    package = published(recipients=[author / "encryption.pub"])
    h = package["header_sha256"]
    admin.post("/api/v1/publishers", {"name": "mallory", "public_key": (stranger / "signing.pub").read_text()})

    def grant(package, signer):
        blob = platform.dir / "blobs" / package["blob_sha256"][:2] / package["blob_sha256"]
        out = tmp_path / f"{os.urandom(4).hex()}.tgrant"
        tg.cli("grant", blob, "--key", author / "encryption.priv", "--signing-key", signer / "signing.priv",
               "--recipient", device.dir / "encryption.pub", "--out", out,
               *(["--trust", author / "signing.pub"] if signer != author else []))
        return out.read_bytes()

    def put(package, document, **kw):
        return publisher.put(f"/api/v1/packages/{package['header_sha256']}/grants/{device.kem_key_id}", document, **kw)

    def stored():
        [row] = admin.get(f"/api/v1/packages/{h}/grants").json["items"]
        return row

    deploy(platform, package, device=device.id)
    put(package, grant(package, stranger))  # a granter of its own, where there is no grant yet
    put(package, grant(package, stranger))  # and again
    good = grant(package, author)
    put(package, good)  # the author's takes its place
    row = stored()
    assert put(package, grant(package, stranger), expect=409).slug == "conflict"
    assert stored() == row
    # a list of signatures that begins with the author's id is still not the author's
    forged, real = json.loads(grant(package, stranger)), json.loads(good)
    forged["signatures"].insert(0, real["signatures"][0])
    assert put(package, json.dumps(forged, separators=(",", ":")).encode(), expect=None).status in (409, 422)
    assert stored() == row
    device.checkin()
    assert device.client().get(f"/device/v1/packages/{h}/grant").body == good
    refused = [r for r in admin.get("/api/v1/audit?action=grant.put").json["items"] if r["outcome"] == "refused"]
    assert refused
    put(package, grant(package, author))  # the author renews
    # where the vault makes the grants nobody else comes before it
    vaulted = published(recipients=[author / "encryption.pub", platform.dir / "vault.pub"])
    assert put(vaulted, grant(vaulted, stranger), expect=409).slug == "conflict"
    put(vaulted, grant(vaulted, author))


def test_fleet_that_takes_only_author_grants(platform, published, tmp_path):
    admin = platform.admin()
    admin.post("/api/v1/fleets", {"name": "strict", "grants": "author"})
    device = tg.Device(tmp_path / "d", platform, "strict").enrol()
    deployment = deploy(platform, published(), fleet="strict").json  # the vault could, but may not
    assert device.checkin().json["deployments"] == []
    assert "author's grant" in show(platform, deployment)["updates"][0]["reason"]
    etag = admin.get("/api/v1/fleets/strict").headers["ETag"]
    admin.put("/api/v1/fleets/strict", {"grants": "any"}, headers={"If-Match": etag})
    assert device.checkin().json["deployments"][0]["grant"] is True


def test_device_that_is_a_recipient_needs_no_grant(platform, device, published):
    package = published(recipients=[device.dir / "encryption.pub"])
    deploy(platform, package, device=device.id)
    [todo] = device.checkin().json["deployments"]
    assert todo["grant"] is False
    device.client().get(f"/device/v1/packages/{package['header_sha256']}/grant", expect=404)


def test_removed_publisher_gets_no_more_grants(platform, device, published):
    package = published()
    [publisher] = platform.admin().get("/api/v1/publishers").json["items"]
    platform.admin().delete(f"/api/v1/publishers/{publisher['key_id']}")
    deployment = deploy(platform, package, fleet="line-1").json
    assert device.checkin().json["deployments"] == []
    assert "vault can't make a grant" in show(platform, deployment)["updates"][0]["reason"]


def test_devices_see_only_their_own(platform, device, published, tmp_path):
    other = tg.Device(tmp_path / "other", platform, "line-1").enrol()
    package = published()
    deployment = deploy(platform, package, device=device.id).json
    device.checkin()
    assert other.checkin().json["deployments"] == []
    other.client().get(f"/device/v1/blobs/{package['blob_sha256']}", expect=404)
    other.client().get(f"/device/v1/packages/{package['header_sha256']}/grant", expect=404)
    other.report(deployment["id"], "running", seq=1, expect=404)
