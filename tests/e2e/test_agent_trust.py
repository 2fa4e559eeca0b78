"""What must not run: strangers' packages, older ones, ones below the floor, and all that a stolen platform wants."""
import base64
import datetime
import json
import os
import pathlib
import shutil
import sqlite3
import time

import pytest

import moai_launcher
import programs
import tg
import tg_agent


@pytest.fixture
def running(world):
    """A device that runs sequence 10 with floor 5 (model 1)."""
    a = world.agent().enrol()
    _, d = world.ship(1, sequence=10, floor=5)
    a.start()
    world.wait_update(d, a.id, "running")
    return world, a


def refused(world, a, deployment, code, text, serves=1):
    u = world.wait_update(deployment, a.id, "failed")
    assert u["code"] == code and text in u["reason"], u
    assert a.serves(serves)
    assert a.status()["update"]["code"] == code
    shown = world.cli("status", deployment).stdout  # and the operator sees why
    assert code in shown and " ".join(u["reason"].split()[:4]) in " ".join(shown.split()), shown
    return u


def test_stranger_whom_the_platform_believes(running, stranger):
    world, a = running
    world.publisher(stranger)
    _, d = world.ship(2, author=stranger, sequence=11)
    refused(world, a, d, "AUTH", "sign")


def test_older_sequence(running):
    world, a = running
    _, d = world.ship(2, sequence=9)
    refused(world, a, d, "ROLLBACK", "sequence")
    _, d = world.ship(2, sequence=10)  # the same number, another package
    refused(world, a, d, "ROLLBACK", "sequence")


def test_older_sequence_where_the_signed_deployment_allows_it(running):
    world, a = running
    h, d = world.ship(2, sequence=9, allow_rollback=True)
    world.wait_update(d, a.id, "running")
    assert a.serves(2)
    a.kill()  # it runs on after a restart, although it is below K
    a.start()
    a.wait_serving("2")
    assert a.serves(2)
    record = json.loads((a.state / "rollback.json").read_text())["models"][0]
    assert record["sequence"] == 10  # K does not go back


def test_back_to_the_one_before_needs_no_permission(running):
    world, a = running
    h10 = a.status()["serving"]["header_sha256"]
    _, d = world.ship(2, sequence=11)
    world.wait_update(d, a.id, "running")
    d = world.deploy(h10)
    world.wait_update(d, a.id, "running")
    assert a.serves(1)


def test_below_the_floor_whatever_anybody_signs(running):
    world, a = running
    for allow in (False, True):
        _, d = world.ship(2, sequence=4, allow_rollback=allow)
        refused(world, a, d, "ROLLBACK", "floor")


def test_package_for_another_fleet(running):
    world, a = running
    # the platform refuses to deploy it; the device's own check is in the unit tests
    h = world.publish(world.build(2, sequence=11, fleet="ships"))
    answer = world.api.post("/api/v1/deployments", {"package": h, "fleet": "robots"}, expect=None)
    assert answer.status == 422 or answer.status == 409, answer


def test_expired_package_is_refused_on_the_device(running):
    world, a = running
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    a.kill()
    _, d = world.ship(2, sequence=11, not_after=soon)
    time.sleep(3.2)
    a.start()
    u = world.wait_update(d, a.id, "failed")
    assert u["code"] == "EXPIRED", u
    assert a.serves(1)


def test_removed_author_stops_loading(world, author, stranger, tmp_path):
    """A newer trust store without the author: the running agent heeds it."""
    store = tmp_path / "fleet.tgtrust"
    tg.cli("trust", "init", store, "--author", author / "signing.pub", "--author", stranger / "signing.pub",
           "--granter", world.platform_pub, "--platform", world.platform_pub)
    a = world.agent()
    argv = a.enrol_argv(world.token(), "--trust-store", store, "--json")
    i = argv.index("--trust")
    del argv[i:i + 2]
    a.id = json.loads(tg.run(*argv).stdout)["device_id"]
    world.publisher(stranger)
    _, one = world.ship(1, author=stranger)
    a.start()
    world.wait_update(one, a.id, "running")
    _, two = world.ship(2)
    world.wait_update(two, a.id, "running")
    key_id = tg.cli_json("trust", "show", store)
    take = [programs.path("tensorguard-agent"), "trust", "--state-dir", a.state, "--trust-store"]
    # not newer; not signed by whom it takes
    assert "version" in tg.run(*take, store, ok=False).stderr
    forged = tmp_path / "forged.tgtrust"
    tg.cli("trust", "init", forged, "--author", stranger / "signing.pub", "--platform", world.platform_pub)
    assert tg.run(*take, forged, ok=False).returncode != 0
    assert a.serves(2)
    tg.cli("trust", "remove", store, author / "signing.pub", "--signing-key", stranger / "signing.priv")
    tg.run(*take, store)
    a.poke()
    a.wait_serving("1")  # back to the stranger's, whom the operator still trusts
    assert a.serves(1)
    assert world.wait_update(two, a.id, "rolled_back")["code"] in ("AUTH", "DENIED")
    tg.cli("trust", "show", store)
    assert key_id


def test_stolen_platform(running, stranger, tmp_path):
    """Somebody has the platform's whole data folder, keys included, and runs it: it answers at the same address, with
    the same certificates, signs deployments with the same key. It cannot make the agent run a forged package or one
    below its floor, nor add an author."""
    world, a = running
    address = world.platform.device_url.split("//")[1]
    world.platform.stop()
    tg_agent.copy_tree(world.platform.dir, tmp_path / "stolen")
    thief = tg.Platform(tmp_path / "stolen")
    thief.token = world.platform.token
    thief.options[thief.options.index("--device-listen") + 1] = address
    world.platform = thief.start()
    world.api = thief.admin()
    a.poke()
    a.wait_status("online", lambda s: s["online"])
    try:
        # 1. a forged package, by an author the thief registers
        world.publisher(stranger)
        _, d = world.ship(2, author=stranger, sequence=99, allow_rollback=True)
        refused(world, a, d, "AUTH", "sign")
        # 2. a genuine package, altered in the blob store after it was accepted
        h = world.publish(world.build(2, sequence=98))
        blob = world.api.get(f"/api/v1/packages/{h}").json["blob_sha256"]
        path = next(p for p in thief.dir.rglob(blob))
        data = bytearray(path.read_bytes())
        data[-5000] ^= 0xff
        os.chmod(path, 0o600)
        path.write_bytes(data)
        d = world.deploy(h)
        u = world.wait_update(d, a.id, "failed")
        assert "SHA-256" in u["reason"] or "digest" in u["reason"], u  # of the whole by the agent, or of a chunk by the worker that follows
        # 3. the same, with the database changed to fit
        import hashlib
        changed = hashlib.sha256(data).hexdigest()
        thief.stop()
        target = path.parent.parent / changed[:2]
        target.mkdir(exist_ok=True)
        shutil.copy(path, target / changed)
        for db in thief.dir.glob("*.db"):
            with sqlite3.connect(db) as connection:
                connection.execute("UPDATE packages SET blob_sha256 = ? WHERE h = ?", (bytes.fromhex(changed), bytes.fromhex(h)))
        world.platform.start()
        world.api = thief.admin()
        d = world.deploy(h, allow_rollback=True)
        u = world.wait_update(d, a.id, "failed")
        assert u["code"] in ("AUTH", "FORMAT"), u
        # 4. a genuine package below the floor, with every permission a platform can give
        _, d = world.ship(2, sequence=4, allow_rollback=True)
        refused(world, a, d, "ROLLBACK", "floor")
        assert a.serves(1)
        record = json.loads((a.state / "rollback.json").read_text())["models"][0]
        assert (record["sequence"], record["floor"]) == (10, 5)
        a.kill()
        a.start()
        a.wait_serving("1")
        assert a.serves(1)
    finally:
        thief.stop()


def test_a_bad_grant_does_not_replace_a_good_one(running):
    """Whoever can change the platform's database cannot spoil what a device has: after a restart it still opens its package."""
    world, a = running
    h = world.api.get("/api/v1/packages").json["items"][0]["header_sha256"]
    good = (a.state / "grants" / f"{h}.tgrant").read_bytes()
    with sqlite3.connect(world.platform.dir / "platform.db") as db:
        forged = bytearray(good)
        forged[len(forged) // 2] ^= 1
        assert db.execute("UPDATE grants SET document = ?", (bytes(forged),)).rowcount == 1
    d = world.deploy(h)
    a.poke()
    world.wait_update(d, a.id, "running")
    fetched = lambda: len(world.api.get("/api/v1/audit?action=grant.fetch").json["items"]) >= 2  # noqa: E731
    tg.wait_for("the grant was fetched again", fetched)
    time.sleep(0.5)
    assert (a.state / "grants" / f"{h}.tgrant").read_bytes() == good
    a.kill()
    a.start()
    a.wait_serving("1")
    assert a.serves(1)


def grant_files(a, h):
    return a.state / "grants" / f"{h}.tgrant", a.state / "grants" / f"{h}.new.tgrant"


def test_a_dud_grant_does_not_replace_a_good_one(running, author, tmp_path):
    """A grant that is well signed, by a key the device takes grants from, but opens nothing: a worker alone can tell. The
    device keeps the one that works."""
    world, a = running
    h = world.api.get("/api/v1/packages").json["items"][0]["header_sha256"]
    kept, later = grant_files(a, h)
    good = kept.read_bytes()
    body = json.loads(base64.urlsafe_b64decode(json.loads(good)["grant"] + "=="))
    text = body["recipient"]["mlkem768_ct"]
    body["recipient"]["mlkem768_ct"] = ("B" if text[0] == "A" else "A") + text[1:]
    (tmp_path / "body").write_text(json.dumps(body, separators=(",", ":")))
    shutil.copy(author / "signing.priv", tmp_path / "signer.priv")
    moai_launcher.kit("sign-grant", "--dir", tmp_path, "--signer", "signer", "--input", tmp_path / "body", "--out",
                      tmp_path / "dud")
    dud = (tmp_path / "dud").read_bytes()
    with sqlite3.connect(world.platform.dir / "platform.db") as db:
        assert db.execute("UPDATE grants SET document = ?", (dud,)).rowcount == 1
    a.poke()
    tg.wait_for("the dud is here", lambda: later.exists() and later.read_bytes() == dud)
    assert kept.read_bytes() == good and a.serves(1)
    for _ in range(2):
        a.kill()
        a.start()
        a.wait_serving("1")
        assert a.serves(1) and kept.read_bytes() == good
    # the wrong way round (the first one never opened anything): the other gets its turn, and the place
    a.kill()
    kept.write_bytes(dud)
    later.write_bytes(good)
    a.start()
    a.wait_serving("1")
    assert a.serves(1) and kept.read_bytes() == good


def test_grants_are_renewed(tmp_path, author):
    """The vault makes a grant anew at half of its life, and for a device that comes back with an expired one."""
    w = tg_agent.World(tmp_path, author, options=["--grant-life", "16"])
    try:
        a = w.agent().enrol()
        h, d = w.ship(1)
        a.start()
        w.wait_update(d, a.id, "running")
        kept, later = grant_files(a, h)
        first = kept.read_bytes()
        tg.wait_for("a new grant", later.exists)
        assert kept.read_bytes() == first and a.serves(1)
        a.kill()
        over = lambda: all(ends(p) < time.time() for p in (kept, later))  # noqa: E731
        tg.wait_for("both have expired", over)
        a.start()
        a.wait_serving("1")
        assert a.serves(1)
        tg.wait_for("the place of the first", lambda: kept.read_bytes() != first)
        made = w.api.get("/api/v1/audit?action=grant.vault").json["items"]
        assert len(made) >= 3
    finally:
        w.stop()


def ends(path):
    body = json.loads(base64.urlsafe_b64decode(json.loads(path.read_bytes())["grant"] + "=="))
    return datetime.datetime.fromisoformat(body["not_after"].replace("Z", "+00:00")).timestamp()


def test_other_platform_key_is_not_believed(world, tmp_path):
    """A platform that signs with a key the operator did not pin: nothing it deploys is taken."""
    a = world.agent()
    other = tmp_path / "other"
    tg.cli("keygen", "--type", "signing", "--out", other)
    argv = a.enrol_argv(world.token(), "--json")
    argv[argv.index("--platform-key") + 1] = other / "signing.pub"
    done = tg.run(*argv)
    a.id = json.loads(done.stdout)["device_id"]
    assert "another key than --platform-key" in done.stderr
    _, d = world.ship(1)
    a.start()
    u = world.wait_update(d, a.id, "failed")
    assert u["code"] == "AUTH" and "deployment" in u["reason"], u
    assert not list((a.state / "packages").iterdir())  # nothing was even fetched
