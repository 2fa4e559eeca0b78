"""An author's own grant, end to end and without the vault: `tensorguard grant`, `tensorguard package grant`, and the device runs
a package that was encrypted to the author alone."""
import base64
import json
import shutil
import sqlite3
import time

import pytest

import moai_launcher
import pack
import tg
import tg_agent


def grant(world, package, recipient, out, author=None, more=()):
    author = author or world.author
    tg.cli("grant", package, "--key", world.author / "encryption.priv", "--signing-key", author / "signing.priv", "--recipient",
           recipient, "--out", out, *([] if author is world.author else ["--trust", world.author / "signing.pub"]), *more)
    return out


def own(world, model=1, files=None, vault=False):
    """A package that its author alone can open; or the platform's vault, too."""
    to = [world.author / "encryption.pub", *([world.vault_pub] if vault else [])]
    return tg.make_package(world.dir, world.author, "perception-net", files or world.files(model), to,
                           model_version=str(model), sequence=time.time_ns() // 1000)  # two in one second are told apart


def test_grant_deliver_run(world, tmp_path):
    a = world.agent().enrol()
    package = own(world)
    h = world.publish(package)
    deployment = world.deploy(h)
    a.start()
    u = world.wait_update(deployment, a.id, "failed", "waiting", "pending", "offered")  # nothing opens it yet
    assert u["state"] != "running"
    g = grant(world, package, a.state / "kem.pub", tmp_path / "d.tgrant")
    said = json.loads(world.cli("package", "grant", package, g, "--json").stdout)
    assert said["device"] == a.id and said["package"] == h and said["name"] == a.dir.name
    listed = json.loads(world.cli("package", "grants", package, "--json").stdout)["grants"]
    assert [x["kem_key_id"] for x in listed] == [said["kem_key_id"]] and listed[0]["granter"] == said["granter"] and not listed[0]["vault"]
    if u["state"] == "failed":
        deployment = world.deploy(h)
    world.wait_update(deployment, a.id, "running")
    assert a.serves(1)


def refused(world, code, *args):
    done = world.cli("package", "grant", *args, "--json", ok=False)
    said = json.loads(done.stdout)
    assert said["error"] == code and done.returncode == pack.EXIT[code] and done.stderr.count("\n") == 1, said
    return said["message"]


def test_a_grant_finds_its_device_or_says_why_not(world, stranger, tmp_path):
    one, two = (tg.Device(tmp_path / name, world.platform, "robots", name).enrol() for name in ("one", "two"))
    package, other = own(world), own(world, 2)
    h = world.publish(package)
    world.publish(other)
    g = grant(world, package, one.dir / "encryption.pub", tmp_path / "g")
    lost = grant(world, package, stranger / "encryption.pub", tmp_path / "lost")
    assert "no active device" in refused(world, "NOTFOUND", package, lost)
    assert one.kem_key_id in refused(world, "NOTFORKEY", package, g, "--device", two.id)
    assert h in refused(world, "NOTFORKEY", other, g)
    refused(world, "NOTFOUND", package, g, "--device", "0" * 32)
    unknown = own(world)
    refused(world, "NOTFOUND", unknown, grant(world, unknown, one.dir / "encryption.pub", tmp_path / "g2"))
    refused(world, "NOTFOUND", package, tmp_path / "none")
    refused(world, "FORMAT", package, pack.write(tmp_path / "bad", b"{}"))
    foreign = grant(world, package, one.dir / "encryption.pub", tmp_path / "foreign", stranger)
    assert "none is by a trusted key" in refused(world, "AUTH", package, foreign)
    assert json.loads(world.cli("package", "grants", h, "--json").stdout)["grants"] == []
    # The same key enrolled a second time: two devices have it until one is revoked.
    again = tg.Device(one.dir, world.platform, "robots", "one-again")
    again.make_keys = lambda: None
    again.csr, again.kem_public_key, again.kem_key_id = tg.make_csr(one.key, "x"), one.kem_public_key, one.kem_key_id
    again.enrol()
    assert again.id != one.id and "2 active devices" in refused(world, "USAGE", package, g)
    said = json.loads(world.cli("package", "grant", h[:12], g, "--device", one.id, "--json").stdout)
    assert said["device"] == one.id and said["kem_key_id"] == one.kem_key_id
    world.cli("device", "revoke", one.id)
    assert "revoked" in refused(world, "STATE", package, g, "--device", one.id)
    assert "one-again" in world.cli("package", "grant", package, g).stdout


# ---- a start with a grant that has expired ----

PAST = ("--not-before", "2024-01-01", "--not-after", "2025-01-01")


def give(world, package, a, out, *more):
    """The author's grant of a package for a device, to the platform."""
    world.cli("package", "grant", package, grant(world, package, a.state / "kem.pub", out, more=more))


def lapse(world, a, package, h):
    """Time passes, for one grant: on the disk and on the platform it has expired. The first's path."""
    kept = a.state / "grants" / f"{h}.tgrant"
    grant(world, package, a.state / "kem.pub", kept, more=PAST)
    with sqlite3.connect(world.platform.dir / "platform.db") as db:
        assert db.execute("UPDATE grants SET not_after = ? WHERE h = ?", (int(time.time()) - 1, bytes.fromhex(h))).rowcount == 1
    return kept


@pytest.fixture
def expired(world, tmp_path):
    """A device that ran version 1, then version 2, and was off until version 2's grant had expired, on its disk and on the
    platform; through a proxy, and stopped."""
    proxy = tg_agent.Proxy(world.platform.device_url)
    a = world.agent()
    a.server = proxy.url
    a.enrol()
    a.start()
    for model in (1, 2):
        package = own(world, model)
        h = world.publish(package)
        give(world, package, a, tmp_path / f"grant-{model}")
        deployment = world.deploy(h)
        world.wait_update(deployment, a.id, "running")
    a.stop()
    a.package, a.h, a.deployment = package, h, deployment
    a.grant_file = lapse(world, a, package, h)
    yield world, proxy, a
    proxy.close()


def waits(a):
    """It says what it waits for and what helps, and keeps the package as the one to run."""
    s = a.wait_status("waiting for a grant", lambda s: s["serving"]["state"] == "grant-waiting")
    assert s["serving"]["header_sha256"] == a.h and s["serving"]["version"] == "2" and s["previous"]["version"] == "1", s
    assert s["serving"]["code"] == "EXPIRED", s
    for words in ("expired at 2025-01-01", "tensorguard package grant", "clock"):
        assert words in s["serving"]["reason"], s
    assert s["update"]["step"] == "running"
    return s


def no_way_back(world, a, state="running"):
    """Neither the device nor the platform holds the package for failed."""
    assert a.status()["serving"]["header_sha256"] == a.h
    assert world.update(a.deployment, a.id)["state"] == state
    assert "agent.fallback" not in a.log_text()
    assert "rolled_back" not in [e["detail"] for e in world.api.get("/api/v1/audit?action=update.report").json["items"]]


def test_an_expired_grant_is_waited_for(expired, tmp_path):
    """It says nothing about the package: no way back to an older one, and no failure in the rollout."""
    world, _, a = expired
    a.start()
    waits(a)
    shown = lambda: world.api.get(f"/api/v1/devices/{a.id}").json  # noqa: E731
    tg.wait_for("the operator reads it", lambda: "grant-waiting" in (shown().get("status") or ""))
    assert shown().get("running") is None and "expired at 2025" in shown()["status"]
    no_way_back(world, a)
    give(world, a.package, a, tmp_path / "new")
    a.wait_serving("2")  # by the same agent
    assert a.serves(2)
    no_way_back(world, a)
    tg.wait_for("it took the old one's place", lambda: a.grant_file.read_bytes() == (tmp_path / "new").read_bytes())
    tg.wait_for("the operator reads that it runs", lambda: shown().get("running") == a.h)
    assert "reason" not in a.status()["serving"]
    assert a.log_text().count("waiting=grant") == 1  # once, not at each look


def test_an_expired_grant_without_a_network(expired, tmp_path):
    world, proxy, a = expired
    proxy.drop()
    for _ in range(2):
        a.start()
        waits(a)
        s = a.wait_status("offline", lambda s: s.get("platform_reason"))
        assert s["serving"]["state"] == "grant-waiting" and not s["online"]
        a.stop()
    give(world, a.package, a, tmp_path / "new")
    a.start()
    waits(a)
    proxy.down = False
    a.poke()
    a.wait_serving("2")
    assert a.serves(2)
    no_way_back(world, a)


def test_an_expired_grant_of_a_revoked_device(expired):
    """It gets none, and says both."""
    world, _, a = expired
    world.cli("device", "revoke", a.id)
    a.start()
    waits(a)
    s = a.wait_status("refused", lambda s: s.get("platform_code") == "DENIED")
    assert "revoked" in s["platform_reason"] and s["serving"]["state"] == "grant-waiting", s
    no_way_back(world, a, "cancelled")


def test_an_expired_grant_and_one_for_another_package(expired, tmp_path):
    """What a stolen platform hands out instead neither starts a worker nor sends the device back."""
    world, _, a = expired
    other = (tmp_path / "grant-1").read_bytes()
    later = int(time.time()) + 86400
    with sqlite3.connect(world.platform.dir / "platform.db") as db:
        db.execute("UPDATE grants SET document = ?, not_after = ? WHERE h = ?", (other, later, bytes.fromhex(a.h)))
    a.start()
    waits(a)
    tg.wait_for("it was looked at", lambda: "agent.grant" in a.log_text())
    assert "it is for another package" in a.log_text()
    waits(a)
    assert not a.grant_file.with_suffix(".new.tgrant").exists()
    no_way_back(world, a)
    give(world, a.package, a, tmp_path / "new")
    a.wait_serving("2")
    no_way_back(world, a)


def test_an_expired_grant_and_one_that_opens_nothing(expired, tmp_path):
    """A worker alone can tell; its word about the grant is none about the package."""
    world, _, a = expired
    text = json.loads(grant(world, a.package, a.state / "kem.pub", tmp_path / "good").read_text())
    body = json.loads(base64.urlsafe_b64decode(text["grant"] + "=="))
    ct = body["recipient"]["mlkem768_ct"]
    body["recipient"]["mlkem768_ct"] = ("B" if ct[0] == "A" else "A") + ct[1:]
    (tmp_path / "body").write_text(json.dumps(body, separators=(",", ":")))
    shutil.copy(world.author / "signing.priv", tmp_path / "signer.priv")
    moai_launcher.kit("sign-grant", "--dir", tmp_path, "--signer", "signer", "--input", tmp_path / "body", "--out", tmp_path / "dud")
    world.cli("package", "grant", a.package, tmp_path / "dud")
    a.start()
    later = a.state / "grants" / f"{a.h}.new.tgrant"
    tg.wait_for("the dud is here", later.exists)
    tg.wait_for("a worker tried it", lambda: "failed=AUTH" in a.log_text())
    s = a.wait_status("waiting on", lambda s: s["serving"]["state"] == "grant-waiting")
    assert s["serving"]["header_sha256"] == a.h
    no_way_back(world, a)
    world.cli("package", "grant", a.package, tmp_path / "good")
    a.poke()
    a.wait_serving("2")
    no_way_back(world, a)


def test_an_expired_grant_hides_no_damage(expired):
    """What is wrong with the package itself sends the device back as ever."""
    world, _, a = expired
    path = a.state / "packages" / f"{a.h}.tgsp"
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1  # in a signature
    path.chmod(0o600)
    path.write_bytes(data)
    a.start()
    a.wait_serving("1")
    assert world.wait_update(a.deployment, a.id, "rolled_back")["code"] in ("AUTH", "FORMAT")


@pytest.mark.parametrize("step", ["fetched", "trying"])
def test_a_grant_that_expires_in_the_middle_of_an_update(world, tmp_path, step):
    """Stopped between the download and the worker for too long: no failure of the package either."""
    a = world.agent().enrol()
    package = own(world)
    h = world.publish(package)
    give(world, package, a, tmp_path / "first")
    deployment = world.deploy(h)
    a.start("--kill-at", step)
    a.wait_exit()
    lapse(world, a, package, h)
    a.start()
    u = tg.wait_for("told why", lambda: (lambda u: "grant" in (u.get("reason") or "") and u)(world.update(deployment, a.id)))
    assert u["state"] == "downloading" and not u.get("code"), u
    assert a.status()["update"]["state"] in ("fetching", "fetch-waiting")
    a.kill()  # and again
    a.start()
    a.wait_status("waiting", lambda s: s["update"]["state"] == "fetch-waiting")
    give(world, package, a, tmp_path / "new")
    world.wait_update(deployment, a.id, "running")
    assert a.serves(1) and "started=trial" in a.log_text()
    reports = [e["detail"] for e in world.api.get("/api/v1/audit?action=update.report").json["items"]]
    assert "failed" not in reports and "rolled_back" not in reports, reports


def test_an_expired_grant_and_once(expired, tmp_path):
    world, _, a = expired
    done = a.once(ok=False)
    assert done.returncode == pack.EXIT["EXPIRED"] and "tensorguard package grant" in done.stderr, done.stderr
    no_way_back(world, a)
    give(world, a.package, a, tmp_path / "new")
    assert json.loads(a.once("--json").stdout)["serving"]["version"] == "2"
    no_way_back(world, a)
    a.start()
    a.wait_serving("2")
