"""What people and CI see: signing in, roles, problem details, ETags, pages, the OpenAPI document, the audit log."""
import calendar
import hashlib
import json
import os
import pty
import re
import select
import sqlite3
import stat
import time

import pytest

import programs
import tg

API_MD = (programs.ROOT / "docs" / "api.md").read_text()


def test_first_start_and_restart(tmp_path):
    p = tg.Platform(tmp_path / "p").start()
    token_file = p.dir / "admin.token"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    token = token_file.read_text().strip()
    assert token not in p.log_text(), "a secret in the log"
    for name in ("vault.key", "keys/vault.priv", "keys/platform.priv", "keys/device-ca.sealed", "platform.db"):
        assert stat.S_IMODE((p.dir / name).stat().st_mode) & 0o077 == 0, name
    for name in ("keys/vault.priv", "keys/platform.priv"):
        assert "ENCRYPTED" in (p.dir / name).read_text(), name
    for name in ("keys/device-ca.sealed", "keys/server-ca.sealed"):
        assert b"PRIVATE KEY" not in (p.dir / name).read_bytes(), name
    me = p.admin().get("/api/v1/me").json
    assert me["role"] == "admin"
    assert not token_file.exists(), "the used token's file is removed"
    facts = p.admin().get("/api/v1/platform").json
    assert facts["vault_public_key"] == (p.dir / "vault.pub").read_text()
    assert facts["vault_key_id"] in p.log_text() and facts["platform_key_id"] in p.log_text(), "login says: compare them"
    assert p.stop() == 0
    p.start()
    again = p.admin().get("/api/v1/platform").json
    for key in ("vault_key_id", "platform_key_id", "server_ca", "device_ca"):
        assert again[key] == facts[key], key
    assert not token_file.exists()
    p.stop()
    # A lost token: whoever can read the data folder makes another.
    p.start("--new-admin-token")
    p.token = None
    assert p.admin().get("/api/v1/me").json["role"] == "admin"
    p.stop()


def read_terminal(fd, until):
    """What a program has written to its terminal, once `until` is in it."""
    text = b""
    while until not in text:
        assert select.select([fd], [], [], tg.DEADLINE)[0], f"the terminal says no more than {text!r}"
        text += os.read(fd, 65536)
    return text.decode()


def test_one_time_token_is_shown_on_terminals_only(tmp_path):
    """Standard output that is kept (a file, a journal) gets the token's path, a terminal the token."""
    p = tg.Platform(tmp_path / "kept").start()
    [line] = [s for s in p.log_text().splitlines() if s.startswith("One-time administrator token:")]
    assert line == f"One-time administrator token: {p.dir / 'admin.token'}"
    assert (p.dir / "admin.token").read_text().strip() not in p.log_text()
    p.stop()
    ours, theirs = pty.openpty()
    p = tg.Platform(tmp_path / "terminal").start(stdout=theirs)
    said = read_terminal(ours, b"Key ids")
    token = (p.dir / "admin.token").read_text().strip()
    assert f"One-time administrator token: {token}\r\n" in said and token.startswith("tga_")
    assert token not in p.log_text(), "never in the log"
    assert p.admin().get("/api/v1/me").json["role"] == "admin"
    p.stop()
    os.close(theirs)
    os.close(ours)


def test_one_time_token_works_once(tmp_path):
    p = tg.Platform(tmp_path / "p").start()
    once = (p.dir / "admin.token").read_text().strip()
    nobody = p.client()
    assert nobody.get("/api/v1/me", expect=401).slug == "unauthenticated"
    one_time = p.client(once).get("/api/v1/fleets", expect=401)
    assert "POST /api/v1/login" in one_time.json["detail"]
    lasting = nobody.post("/api/v1/login", {"token": once, "name": "first"}).json
    second = nobody.post("/api/v1/login", {"token": once, "name": "second"}, expect=401)
    assert "used before" in second.json["detail"]
    rows = p.client(lasting["token"]).get("/api/v1/audit?action=token.login").json["items"]
    assert [r["outcome"] for r in rows] == ["ok", "refused"]
    db = sqlite3.connect(p.dir / "platform.db")
    stored = json.dumps([[str(v) for v in row] for row in db.execute("SELECT * FROM tokens")])
    assert once not in stored and lasting["token"] not in stored
    p.stop()


def test_wrong_passphrase(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("correct horse\n"), bad.write_text("wrong\n")
    for f in (good, bad):
        f.chmod(0o600)
    tg.Platform(tmp_path / "p", "--passphrase-file", good).start().stop()
    assert not (tmp_path / "p" / "vault.key").exists()
    done = tg.run(programs.path("tensorguard-platform"), "--data-dir", tmp_path / "p", "--passphrase-file", bad, ok=False)
    assert "passphrase" in done.stderr
    # One process per folder.
    running = tg.Platform(tmp_path / "p", "--passphrase-file", good).start()
    done = tg.run(programs.path("tensorguard-platform"), "--data-dir", tmp_path / "p", "--passphrase-file", good, ok=False)
    assert "another tensorguard-platform" in done.stderr
    running.stop()


def routes_of(openapi):
    return {(m.upper(), path): op for path, ops in openapi["paths"].items() for m, op in ops.items()}


def test_openapi_agrees_with_the_routes_and_the_docs(shared_platform):
    platform = shared_platform
    openapi = platform.client().get("/api/v1/openapi.json").json
    assert openapi["openapi"].startswith("3.1")
    served = routes_of(openapi)
    documented = {(m, p): (roles, answers) for m, p, roles, answers in re.findall(
        r"^\| (GET|PUT|POST|DELETE) \| `([^`]+)` \| ([^|]+) \|[^|]*\| ([^|]+) \|$", API_MD, re.M)}
    assert set(served) == set(documented)
    for route, op in served.items():
        said, answers = documented[route]
        roles = op["x-roles"]
        expected = {"–": [], "viewer": ["admin", "publisher", "operator", "viewer"], "admin": ["admin"],
                    "operator": ["admin", "operator"], "publisher": ["admin", "publisher"], "device": ["device"]}
        assert roles == expected[said.strip()], route
        status = next(s for s in op["responses"] if s != "default")
        assert status in answers, (route, answers)
    # What is said to come back does.
    for (method, path), op in served.items():
        if method == "GET" and "{" not in path and path.startswith(("/api/", "/healthz", "/metrics")):
            kinds = next(r for s, r in op["responses"].items() if s != "default")["content"]
            answer = platform.admin().get(path)
            assert [answer.headers["Content-Type"].split(";")[0]] == list(kinds), path
    # Every reference leads somewhere, and every schema that a route uses is there.
    text = json.dumps(openapi)
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in openapi["components"]["schemas"], name
    # The problems that are documented are those of the table in the code.
    slugs = set(re.findall(r"^\| `([a-z-]+)` \| \d+ \|", API_MD, re.M))
    code = (programs.ROOT / "src" / "wire" / "common.c").read_text()
    assert slugs == set(re.findall(r'\] = \{"([a-z-]+)"', code))


def example_path(path):
    values = {"fleet": "line-1", "package": "ab" * 32, "blob": "ab" * 32, "part": "0"}
    return re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], "ab" * 16), path)


def test_every_route_asks_who_you_are(shared_platform):
    platform = shared_platform
    """Driven by the served document: no route can be forgotten."""
    served = routes_of(platform.client().get("/api/v1/openapi.json").json)
    clients = {role: platform.role(role) for role in ("publisher", "operator", "viewer")}
    for (method, path), op in served.items():
        body = b"" if method in ("POST", "PUT") else None
        if op["x-listener"] == "devices":
            if op["x-roles"]:
                answer = platform.device_client().call(method, example_path(path), body)
                assert (answer.status, answer.slug) == (401, "no-certificate"), (method, path)
            continue
        if not op["x-roles"]:
            continue
        answer = platform.client().call(method, example_path(path), body)
        assert (answer.status, answer.slug) == (401, "unauthenticated"), (method, path)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        for role, client in clients.items():
            answer = client.call(method, example_path(path), body)
            if role in op["x-roles"]:
                assert answer.status not in (401, 403), (method, path, role, answer)
            else:
                assert (answer.status, answer.slug) == (403, "forbidden"), (method, path, role, answer)


def test_exactly_these_routes_are_open(shared_platform):
    """Whoever has neither token nor certificate: every path of the document, on both listeners."""
    served = routes_of(shared_platform.client().get("/api/v1/openapi.json").json)
    found = {}
    for listener, nobody in (("people", shared_platform.client()), ("devices", shared_platform.device_client())):
        for method, path in served:
            answer = nobody.call(method, example_path(path), b"" if method in ("POST", "PUT") else None)
            if answer.status not in (401, 404):
                found.setdefault(listener, set()).add(f"{method} {path}")
            elif answer.status == 404:
                assert answer.slug == "not-found" and path.startswith("/api" if listener == "devices" else "/device") or \
                    path == "/metrics"
    assert found == {"people": {"GET /healthz", "GET /api/v1/openapi.json", "POST /api/v1/login"},
                     "devices": {"GET /healthz", "POST /device/v1/enrol"}}


def test_tokens_expire_and_end(platform):
    admin = platform.admin()
    made = admin.post("/api/v1/tokens", {"name": "short", "role": "viewer", "expires_in_s": 60}).json
    assert made["role"] == "viewer" and made["token"].startswith("tgt_")
    client = platform.client(made["token"])
    client.get("/api/v1/fleets")
    listed = {t["id"]: t for t in admin.get("/api/v1/tokens").json["items"]}
    assert "token" not in listed[made["id"]]
    db = sqlite3.connect(platform.dir / "platform.db")
    with db:
        db.execute("UPDATE tokens SET expires_at = 1 WHERE id = ?", (made["id"],))
    db.close()
    assert "expired" in client.get("/api/v1/fleets", expect=401).json["detail"]
    other = admin.post("/api/v1/tokens", {"name": "other", "role": "operator"}).json
    admin.delete(f"/api/v1/tokens/{other['id']}")
    platform.client(other["token"]).get("/api/v1/fleets", expect=401)
    assert admin.delete(f"/api/v1/tokens/{other['id']}", expect=404).slug == "not-found"
    admin.post("/api/v1/tokens", {"name": "x", "role": "root"}, expect=400)
    admin.post("/api/v1/tokens", {"name": "x"}, expect=400)


@pytest.mark.parametrize("body, says", [
    (b"", "body"), (b"[]", "body"), (b"{", "body"), (b'{"name":"a","name":"b"}', "name"),
    (b'{"name":"a","nam\\u0065":"b"}', "duplicate"), (b'{"name":7}', "name"), (b'{"name":null}', "name"),
    (b'{"name":"a","colour":"red"}', "colour"), (b'{"name":"../a"}', "name"), (b"{}", "name"),
    (b'{"name":"a","grants":"everyone"}', "grants"), (b'{"name":"a"}x', "body"), (b'\xef\xbb\xbf{"name":"a"}', "body"),
    (b'{"name":"' + b"a" * 65 + b'"}', "name"), (b'{"a":' * 40 + b"1" + b"}" * 40, "body"),
])
def test_bad_bodies(shared_platform, body, says):
    answer = shared_platform.admin().post("/api/v1/fleets", body, expect=400)
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert problem["type"] == "urn:tensorguard:problem:bad-request"
    assert problem["code"] == "FORMAT" and problem["status"] == 400 and problem["instance"]
    assert says in problem["detail"]


def test_unknown_paths_and_methods(shared_platform):
    platform = shared_platform
    admin = platform.admin()
    for path in ("/", "/api", "/api/v2/fleets", "/api/v1/fleets/", "/api/v1/devices/xyz", "/api/v1/packages/00"):
        assert admin.get(path, expect=404).slug == "not-found", path
    answer = admin.call("PUT", "/api/v1/fleets", b"{}", expect=405)
    assert answer.slug == "method" and set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert admin.call("HEAD", "/api/v1/fleets", expect=200).body == b""


def test_etags(platform):
    admin = platform.admin()
    admin.post("/api/v1/fleets", {"name": "line-1", "description": "a"})
    got = admin.get("/api/v1/fleets/line-1")
    etag = got.headers["ETag"]
    assert admin.get("/api/v1/fleets/line-1", headers={"If-None-Match": etag}, expect=304).body == b""
    put = lambda expect, **h: admin.put("/api/v1/fleets/line-1", {"description": "b"}, headers=h, expect=expect)
    assert put(428).slug == "precondition-required"
    assert put(412, **{"If-Match": '"other"'}).slug == "precondition"
    changed = put(200, **{"If-Match": etag})
    assert changed.json["description"] == "b" and changed.headers["ETag"] != etag
    assert put(412, **{"If-Match": etag}).slug == "precondition", "the loser of a race is told"
    assert admin.get("/api/v1/fleets/line-1").headers["ETag"] == changed.headers["ETag"]
    admin.post("/api/v1/fleets", {"name": "line-1"}, expect=409)


def test_pages(platform):
    admin = platform.admin()
    names = sorted(f"f{i:03}" for i in range(25))
    for name in names:
        admin.post("/api/v1/fleets", {"name": name})
    seen, after = [], ""
    while True:
        page = admin.get(f"/api/v1/fleets?limit=10{after}").json
        seen += [f["name"] for f in page["items"]]
        if "next" not in page:
            break
        after = f"&after={page['next']}"
    assert seen == names
    for bad in ("limit=0", "limit=1001", "limit=x", "limit=-1"):
        assert admin.get(f"/api/v1/fleets?{bad}", expect=400).slug == "bad-request"
    admin.get("/api/v1/packages?after=x", expect=400)


def test_rate_limit(tmp_path):
    p = tg.Platform(tmp_path / "p", rate_limit=5).start()
    admin = p.admin()
    statuses = [admin.call("GET", "/api/v1/fleets") for _ in range(30)]
    refused = [a for a in statuses if a.status == 429]
    assert refused and refused[0].slug == "rate" and int(refused[0].headers["Retry-After"]) >= 1
    assert statuses[0].status == 200
    time.sleep(1.5)
    # A refusal counts like an answer: nobody fills the audit log with them.
    viewer = p.client(admin.post("/api/v1/tokens", {"name": "v", "role": "viewer"}).json["token"])
    statuses = [viewer.call("POST", "/api/v1/fleets", {"name": "f"}).status for _ in range(40)]
    assert statuses[0] == 403 and 429 in statuses and set(statuses) == {403, 429}, statuses
    time.sleep(1.5)
    rows = [r for r in admin.get("/api/v1/audit?action=fleet.create").json["items"] if r["outcome"] == "refused"]
    assert len(rows) == statuses.count(403)
    stranger = p.client("tgt_nobody")
    statuses = [stranger.call("GET", "/api/v1/me").status for _ in range(120)]
    assert statuses[0] == 401 and 429 in statuses and set(statuses) == {401, 429}, statuses
    p.stop()


def test_audit_chain_is_checked(platform):
    admin = platform.admin()
    for i in range(5):
        admin.post("/api/v1/fleets", {"name": f"f{i}"})
    good = admin.get("/api/v1/audit/verify").json
    assert good["ok"] and good["entries"] >= 7
    rows = admin.get("/api/v1/audit").json["items"]
    assert [r["seq"] for r in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["action"] == "platform.init" and rows[-1]["target"] == "fleet:f4"
    assert all(a["hash"] == b["prev_hash"] for a, b in zip(rows, rows[1:]))
    # By the documented formula, in another language.
    for r in rows:
        h = hashlib.sha256(b"TensorGuard audit 1\0" + bytes.fromhex(r["prev_hash"]) + r["seq"].to_bytes(8, "big"))
        at = calendar.timegm(time.strptime(r["at"], "%Y-%m-%dT%H:%M:%SZ"))
        h.update(at.to_bytes(8, "big"))
        for k in ("actor", "name", "address", "action", "target", "package", "outcome", "detail"):
            v = bytes.fromhex(r.get(k, "")) if k == "package" else r[k].encode()
            h.update(len(v).to_bytes(4, "big") + v)
        assert h.hexdigest() == r["hash"], r


@pytest.mark.parametrize("sql, bad", [
    ("UPDATE audit SET detail = 'nothing to see' WHERE seq = 4", 4),
    ("UPDATE audit SET at = at - 1 WHERE seq = 3", 3),
    ("DELETE FROM audit WHERE seq = 4", 5),
    ("UPDATE audit SET seq = -1 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = -1", 3),
])
def test_audit_tampering_is_found(platform, sql, bad):
    admin = platform.admin()
    for i in range(5):
        admin.post("/api/v1/fleets", {"name": f"f{i}"})
    db = sqlite3.connect(platform.dir / "platform.db")
    db.executescript(sql)
    db.close()
    found = admin.get("/api/v1/audit/verify").json
    assert not found["ok"] and found["first_bad"] == bad


def test_help_and_usage():
    program = programs.path("tensorguard-platform")
    text = tg.run(program, "--help").stdout
    for option in ("--data-dir", "--listen", "--device-listen", "--key-file", "--passphrase-file", "--json", "--poll"):
        assert option in text
    # One text each in the code for the default and for what the help says of it: this machine alone.
    assert "(127.0.0.1:8443)" in text and "(127.0.0.1:8444)" in text
    assert tg.run(program, ok=False).returncode == 2


@pytest.mark.parametrize("argv, says", [
    (["--nonsense"], "--nonsense"), (["--threads", "0"], "--threads"), (["--listen", "nowhere"], "ADDRESS:PORT"),
    (["--log-level", "loud"], "log-level"), (["--key-file", "a", "--passphrase-file", "b"], "not both"),
    (["--poll", "0"], "--poll"), (["--key-file", "/nonexistent"], "/nonexistent"),
])
def test_wrong_usage(tmp_path, argv, says):
    done = tg.run(programs.path("tensorguard-platform"), "--data-dir", tmp_path / "p", *argv, ok=False)
    assert says in done.stderr and not (tmp_path / "p" / "run").exists()


def test_json_of_the_first_start(tmp_path):
    p = tg.Platform(tmp_path / 'a "quoted" folder', "--json").start()
    said = json.loads(p.log_text().splitlines()[0])
    assert said["admin_token_file"] == str(p.dir / "admin.token") and said["own_key_file"] is True
    assert p.endpoints["ca"] == str(p.dir / "ca.pem")
    assert p.stop() == 0


def test_addresses_and_names(tmp_path):
    """Certificates name what clients are told; "any address" is no address to tell."""
    p = tg.Platform(tmp_path / "p", "--name", "models.example")
    p.options[1], p.options[3] = "0.0.0.0:0", "[::1]:0"
    p.start()
    assert p.api_url.startswith("https://models.example:") and p.device_url.startswith("https://models.example:")
    text = tg.run(programs.openssl(), "s_client", "-connect", f"127.0.0.1:{p.endpoints['api_port']}", "-CAfile", p.ca,
                  "-verify_return_error", "-verify_hostname", "models.example", "-brief", input="", ok=None)
    assert "Verification: OK" in text.stdout + text.stderr
    text = tg.run(programs.openssl(), "s_client", "-connect", f"[::1]:{p.endpoints['device_port']}", "-CAfile", p.ca,
                  "-verify_return_error", "-verify_ip", "::1", "-brief", input="", ok=None)
    assert "Verification: OK" in text.stdout + text.stderr
    p.stop()
    p = tg.Platform(tmp_path / "p")
    p.options[1], p.options[3] = "0.0.0.0:0", "127.0.0.2:0"
    p.start()
    assert p.api_url.startswith("https://localhost:") and "--name" in p.log_text()
    p.device_client().get("/healthz")  # by 127.0.0.2: in the certificate
    p.stop()
