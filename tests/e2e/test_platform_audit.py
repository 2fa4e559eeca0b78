"""The audit log tells every change and every hand-over, once each: one good request of each route that has an audit action."""
import hashlib
import os
import re

import pytest

import programs
import tg

API_MD = (programs.ROOT / "docs" / "api.md").read_text()


class Scene:
    """What requests are made about. Requests go through self.admin (actor: its token) or self.device."""

    def __init__(self, platform, author, folder):
        self.platform, self.author, self.dir = platform, author, folder
        self.once = (platform.dir / "admin.token").read_text().strip()

    def login(self):
        """Not before the test of the login itself."""
        self.admin = self.platform.admin()
        self.me = self.admin.get("/api/v1/me").json["id"]
        self.admin.post("/api/v1/fleets", {"name": "line"})
        self.device = tg.Device(self.dir / "device", self.platform, "line").enrol()
        self.client = self.device.client()
        self.admin.post("/api/v1/publishers", {"name": "author", "public_key": (self.author / "signing.pub").read_text()})
        self.package = self.publish(self.platform.dir / "vault.pub", self.author / "encryption.pub")
        self.h, self.blob = self.package["header_sha256"], self.package["blob_sha256"]

    def publish(self, *recipients):
        return tg.upload(self.admin, tg.make_package(self.dir, self.author, recipients=recipients)).json

    def uploading(self, data):
        return self.admin.post("/api/v1/uploads", {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
                                                   "part_size": 65536}).json["id"]

    def offered(self):
        """A deployment that the device was offered."""
        made = self.admin.post("/api/v1/deployments", {"package": self.h, "device": self.device.id}).json["id"]
        self.device.checkin(self.client)
        return made


# Each makes ready for one good request and gives it, (path, body, headers), with what its row says: the target and, of
# rows about a package, H. "{id}" in a target is the answer's own "id".

def login(s):
    return ("/api/v1/login", {"token": s.once, "name": "ci"}), "see check_login", ""


def token_create(s):
    return ("/api/v1/tokens", {"name": "t", "role": "viewer"}), "token:{id}", ""


def token_delete(s):
    made = s.admin.post("/api/v1/tokens", {"name": "gone", "role": "viewer"}).json["id"]
    return (f"/api/v1/tokens/{made}",), f"token:{made}", ""


def fleet_create(s):
    return ("/api/v1/fleets", {"name": "line-2"}), "fleet:line-2", ""


def fleet_change(s):
    etag = s.admin.get("/api/v1/fleets/line").headers["ETag"]
    return ("/api/v1/fleets/line", {"description": "changed"}, {"If-Match": etag}), "fleet:line", ""


def enrolment_create(s):
    return ("/api/v1/enrolment-tokens", {"fleet": "line"}), "enrolment:{id}", ""


def enrolment_delete(s):
    made = s.admin.post("/api/v1/enrolment-tokens", {"fleet": "line"}).json["id"]
    return (f"/api/v1/enrolment-tokens/{made}",), f"enrolment:{made}", ""


def device_revoke(s):
    other = tg.Device(s.dir / "revoked", s.platform, "line").enrol().id
    return (f"/api/v1/devices/{other}/revoke", {"reason": "lost"}), f"device:{other}", ""


def publisher_add(s):
    keys = tg.make_author(s.dir / "publisher")
    s.publisher = {"name": "second", "public_key": (keys / "signing.pub").read_text()}
    return ("/api/v1/publishers", s.publisher), "publisher:{key_id}", ""


def publisher_remove(s):
    [key] = [p["key_id"] for p in s.admin.get("/api/v1/publishers").json["items"] if p["name"] == "second"]
    return (f"/api/v1/publishers/{key}",), f"publisher:{key}", ""


def upload_create(s):
    return ("/api/v1/uploads", {"size": 65536, "sha256": "ab" * 32, "part_size": 65536}), "upload:{id}", ""


def upload_part(s):
    data = os.urandom(1000)
    made = s.uploading(data)
    return (f"/api/v1/uploads/{made}/parts/0", data, tg.digest_header(data)), f"upload:{made}", ""


def upload_complete(s):
    package = tg.make_package(s.dir, s.author, files={"model.bin": b"x" * 100})
    data = package.read_bytes()
    made = s.uploading(data)
    s.admin.put(f"/api/v1/uploads/{made}/parts/0", data, headers=tg.digest_header(data))
    return (f"/api/v1/uploads/{made}/complete", b""), f"upload:{made}", tg.h_of(package)


def upload_delete(s):
    made = s.uploading(b"x" * 10)
    return (f"/api/v1/uploads/{made}",), f"upload:{made}", ""


def grant_put(s):
    blob, out = s.platform.dir / "blobs" / s.blob[:2] / s.blob, s.dir / "g.tgrant"
    tg.cli("grant", blob, "--key", s.author / "encryption.priv", "--signing-key", s.author / "signing.priv",
           "--recipient", s.device.dir / "encryption.pub", "--out", out)
    key = s.device.kem_key_id
    return (f"/api/v1/packages/{s.h}/grants/{key}", out.read_bytes()), f"kem-key:{key}", s.h


def blob_get(s):
    return (f"/api/v1/blobs/{s.blob}",), f"blob:{s.blob}", s.h


def deployment_create(s):
    return ("/api/v1/deployments", {"package": s.h, "fleet": "line"}), "fleet:line", s.h


def deployment_cancel(s):
    made = s.offered()
    return (f"/api/v1/deployments/{made}",), f"deployment:{made}", s.h


def enrol(s):
    token = s.admin.post("/api/v1/enrolment-tokens", {"fleet": "line"}).json["token"]
    other = tg.Device(s.dir / "enrols", s.platform, "line")
    other.make_keys()
    return ("/device/v1/enrol", other.enrol_body(token)), "device:{device_id}", ""


def renew(s):
    return ("/device/v1/renew", {"csr": s.device.csr}), f"device:{s.device.id}", ""


def device_grant(s):
    s.offered()
    return (f"/device/v1/packages/{s.h}/grant",), f"device:{s.device.id}", s.h


def report(s):
    made = s.offered()
    return (f"/device/v1/updates/{made}/reports", {"seq": 1, "state": "downloading"}), f"update:{made}", s.h


REQUESTS = {
    ("POST", "/api/v1/login"): login,
    ("POST", "/api/v1/tokens"): token_create,
    ("DELETE", "/api/v1/tokens/{token}"): token_delete,
    ("POST", "/api/v1/fleets"): fleet_create,
    ("PUT", "/api/v1/fleets/{fleet}"): fleet_change,
    ("POST", "/api/v1/enrolment-tokens"): enrolment_create,
    ("DELETE", "/api/v1/enrolment-tokens/{enrolment_token}"): enrolment_delete,
    ("POST", "/api/v1/devices/{device}/revoke"): device_revoke,
    ("POST", "/api/v1/publishers"): publisher_add,
    ("DELETE", "/api/v1/publishers/{publisher}"): publisher_remove,
    ("POST", "/api/v1/uploads"): upload_create,
    ("PUT", "/api/v1/uploads/{upload}/parts/{part}"): upload_part,
    ("POST", "/api/v1/uploads/{upload}/complete"): upload_complete,
    ("DELETE", "/api/v1/uploads/{upload}"): upload_delete,
    ("PUT", "/api/v1/packages/{package}/grants/{kem_key}"): grant_put,
    ("GET", "/api/v1/blobs/{blob}"): blob_get,
    ("POST", "/api/v1/deployments"): deployment_create,
    ("DELETE", "/api/v1/deployments/{deployment}"): deployment_cancel,
    ("POST", "/device/v1/enrol"): enrol,
    ("POST", "/device/v1/renew"): renew,
    ("GET", "/device/v1/packages/{package}/grant"): device_grant,
    ("POST", "/device/v1/updates/{deployment}/reports"): report,
}


def rows_after(admin, seq):
    return admin.get(f"/api/v1/audit?limit=1000&after={seq}").json["items"]


def last_seq(admin):
    return admin.get("/api/v1/audit/verify").json["entries"]


def actor_of(scene, method, path):
    if path == "/device/v1/enrol":
        return "anonymous"  # it has no certificate yet
    return f"device:{scene.device.id}" if path.startswith("/device/") else f"token:{scene.me}"


def ask(client, method, request, status):
    path, body, headers = (*request, None, None)[:3]
    answer = client.call(method, path, body, headers, expect=status)
    try:
        return answer.json
    except ValueError:
        return {}


def check_login(scene):
    """The first row of a token: the log cannot be read before it."""
    (path, body), _, _ = login(scene)
    made = scene.platform.client().post(path, body).json
    scene.platform.token = made["token"]
    rows = [r for r in rows_after(scene.platform.client(made["token"]), 0) if r["action"] == "token.login"]
    assert [(r["actor"], r["name"], r["outcome"]) for r in rows] == [(f"token:{made['id']}", "ci", "ok")]
    assert re.fullmatch(r"token:[0-9a-f]{32}", rows[0]["target"]) and rows[0]["target"] != f"token:{made['id']}", \
        "the one that was used up"


def test_each_route_with_an_action_leaves_its_row(platform, author, tmp_path):
    served = platform.client().get("/api/v1/openapi.json").json["paths"]
    routes = {(m.upper(), path): op for path, ops in served.items() for m, op in ops.items() if "x-audit-action" in op}
    assert set(routes) == set(REQUESTS), "a route with an audit action that no request here is made for"
    scene = Scene(platform, author, tmp_path)
    check_login(scene)
    scene.login()
    for (method, path), prepare in REQUESTS.items():
        if prepare is login:
            continue
        op, client = routes[(method, path)], scene.client if path.startswith("/device/") else scene.admin
        if path == "/device/v1/enrol":
            client = platform.device_client()
        request, target, h = prepare(scene)
        before = last_seq(scene.admin)
        answer = ask(client, method, request, int(next(s for s in op["responses"] if s != "default")))
        rows = rows_after(scene.admin, before)
        assert [(r["action"], r["actor"], r["target"], r["outcome"], r.get("package", "")) for r in rows] == \
            [(op["x-audit-action"], actor_of(scene, method, path), target.format(**answer), "ok", h)], (method, path)
        assert rows[0]["address"].startswith("127.0.0.1:") and op["x-audit-action"] in API_MD
    assert scene.admin.get("/api/v1/audit/verify").json["ok"]


def test_reading_and_checking_in_leave_no_row(platform, author, tmp_path):
    """What a check-in says of itself is state, not a change; what it brings about is told: the offer, and a grant for it."""
    scene = Scene(platform, author, tmp_path)
    scene.login()
    before = last_seq(scene.admin)
    for _ in range(3):
        scene.device.checkin(scene.client, running="ab" * 32, status="hello")
    for path in ("fleets", "devices", "packages", "deployments", "tokens", "publishers", "enrolment-tokens", f"packages/{scene.h}"):
        scene.admin.get(f"/api/v1/{path}")
    tg.wait_for("the heartbeat", lambda: scene.admin.get(f"/api/v1/devices/{scene.device.id}").json.get("status") == "hello")
    assert last_seq(scene.admin) == before
    scene.offered()
    scene.device.checkin(scene.client)
    told = [(r["action"], r["actor"].split(":")[0]) for r in rows_after(scene.admin, before)]
    assert told == [("deployment.create", "token"), ("grant.vault", "device"), ("deployment.offer", "device")]


@pytest.mark.parametrize("headers, status, told", [
    ({}, 200, "all {size} bytes"),
    ({"Range": "bytes=0-"}, 206, "bytes 0-{last} of {size}"),
    ({"Range": "bytes=0-9"}, 206, "bytes 0-9 of {size}"),
    ({"Range": "bytes=-1"}, 206, "bytes {last}-{last} of {size}"),
    ({"Range": "bytes=0-9", "If-Range": '"other"'}, 200, "all {size} bytes"),
    ({"Range": "bytes=0-9,20-29"}, 200, "all {size} bytes"),
    ({"Range": "bytes={size}-"}, 416, None),
    ({"If-None-Match": '"{blob}"'}, 304, None),
    ("HEAD", 200, None),
])
def test_a_download_by_people_is_told(downloads, headers, status, told):
    """Whatever part of the file a token is given: who, and which bytes."""
    scene, viewer, who = downloads
    facts = {"size": scene.package["blob_size"], "last": scene.package["blob_size"] - 1, "blob": scene.blob}
    method, headers = ("HEAD", {}) if headers == "HEAD" else ("GET", {k: v.format(**facts) for k, v in headers.items()})
    before = last_seq(scene.admin)
    viewer.call(method, f"/api/v1/blobs/{scene.blob}", headers=headers, expect=status)
    rows = [(r["action"], r["actor"], r["name"], r["target"], r["package"], r["outcome"], r["detail"])
            for r in rows_after(scene.admin, before)]
    assert rows == ([] if told is None else [("package.download", f"token:{who['id']}", "reader", f"blob:{scene.blob}", scene.h,
                                              "ok", told.format(**facts))])


@pytest.fixture(scope="module")
def downloads(shared_platform, author, tmp_path_factory):
    scene = Scene(shared_platform, author, tmp_path_factory.mktemp("downloads"))
    scene.login()
    viewer = shared_platform.role("viewer", "reader")
    return scene, viewer, viewer.get("/api/v1/me").json
