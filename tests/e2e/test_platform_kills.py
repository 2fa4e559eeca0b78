"""kill -9 while the requests of updates are in flight, aimed at each kind of them in turn: what was acknowledged is there
after the restart, and nothing is half there."""
import collections
import hashlib
import itertools
import os
import random
import sqlite3
import ssl
import threading
import time

import tg

STEPS = ("enrol", "deploy", "offer", "grant", "report", "renew")
STATES = ("downloading", "downloaded", "loading", "running")
GRANTS = 8


class World:
    """A platform with two packages: one that the vault makes grants for, one that only its author does."""

    def __init__(self, folder, author):
        self.dir, self.author = folder, author
        self.platform = tg.Platform(folder / "p").start()
        admin = self.platform.admin()
        admin.post("/api/v1/fleets", {"name": "line"})
        admin.post("/api/v1/publishers", {"name": "author", "public_key": (author / "signing.pub").read_text()})
        by_vault = tg.make_package(folder, author, recipients=[self.platform.dir / "vault.pub"])
        by_author = tg.make_package(folder, author, recipients=[author / "encryption.pub"])
        self.h, self.h_author = (tg.upload(admin, p).json["header_sha256"] for p in (by_vault, by_author))
        self.key = folder / "device.key"
        self.csr = tg.make_csr(self.key, "anything")  # one key for all devices: what differs is the certificate
        self.kem = tg.kem_public_raw(author / "encryption.pub")
        self.grants = itertools.cycle([self.author_grant(by_author, n) for n in range(GRANTS)])
        self.target, self.left, self.aimed = None, 0, threading.Event()

    def author_grant(self, package, n):
        keys, out = self.dir / f"recipient-{n}", self.dir / f"{n}.tgrant"
        tg.cli("keygen", "--type", "encryption", "--out", keys)
        tg.cli("grant", package, "--key", self.author / "encryption.priv", "--signing-key", self.author / "signing.priv",
               "--recipient", keys / "encryption.pub", "--out", out)
        return kem_id(tg.kem_public_raw(keys / "encryption.pub")), out.read_bytes()

    def kill_in(self, step, nth, delay):
        """Kill the platform a moment after the nth request of this kind began."""
        self.aimed.clear()
        self.left, self.target = nth, step
        assert self.aimed.wait(tg.DEADLINE), f"no request of the kind {step}"
        time.sleep(delay)
        self.platform.kill()
        self.target = None


def kem_id(raw):
    return hashlib.sha256(b"TGSP-1.0 kem key" + raw).hexdigest()[:32]


class Lives(threading.Thread):
    """One device's life after the other: enrolment, deployment, offer, grants, reports, renewal; until the platform is gone."""

    def __init__(self, world, number):
        super().__init__()
        self.world, self.number = world, number
        self.acknowledged = {step: [] for step in STEPS}
        self.now, self.failure = None, None

    def step(self, name, send, facts):
        """send() a request; facts(its answer) is what was acknowledged by it."""
        self.now = name
        if self.world.target == name:
            self.world.left -= 1
            if self.world.left <= 0:
                self.world.aimed.set()
        answer = send().json
        self.acknowledged[name].append(facts(answer))
        self.now = None
        return answer

    def run(self):
        try:
            self.admin = self.world.platform.client(self.world.platform.token)
            self.nobody = self.world.platform.device_client()
            while True:
                self.life()
        except (OSError, ssl.SSLError, tg.http.client.HTTPException):
            pass  # killed: nothing of this answer counts
        except Exception as e:  # noqa: BLE001  the test must see it
            self.failure = e

    def life(self):
        w = self.world
        token = self.admin.post("/api/v1/enrolment-tokens", {"fleet": "line"}).json
        body = {"token": token["token"], "fleet": "line", "name": "d", "csr": w.csr, "agent_version": "0.1.0", "separation": False,
                "kem_public_key": tg.b64url(w.kem[:-32] + os.urandom(32))}  # the seed of an ML-KEM key may be any
        enrolled = self.step("enrol", lambda: self.nobody.post("/device/v1/enrol", body), lambda a: (token["id"], a["device_id"]))
        device = enrolled["device_id"]
        made = self.step("deploy", lambda: self.admin.post("/api/v1/deployments", {"package": w.h, "device": device}),
                         lambda a: a["id"])["id"]
        client = self.client(enrolled["certificate"], device)
        self.step("offer", lambda: client.post("/device/v1/checkin", {"agent_version": "0.1.0", "separation": False}, expect=200),
                  lambda a: (a["deployments"][0]["deployment_id"], device))
        kem, document = next(w.grants)
        self.step("grant", lambda: self.admin.put(f"/api/v1/packages/{w.h_author}/grants/{kem}", document), lambda a: kem)
        for seq, state in enumerate(STATES, 1):
            self.step("report", lambda: client.post(f"/device/v1/updates/{made}/reports", {"seq": seq, "state": state}, expect=200),
                      lambda a: (made, device, seq))
        self.step("renew", lambda: client.post("/device/v1/renew", {"csr": w.csr}, expect=200),
                  lambda a: (device, a["certificate"]))

    def client(self, certificate, name):
        path = self.world.dir / f"{name}.crt"
        path.write_text(certificate)
        return self.world.platform.device_client(path, self.world.key)


class Stored:
    """What the database holds, and whether it belongs together."""

    def __init__(self, platform):
        db = sqlite3.connect(f"file:{platform.dir / 'platform.db'}?mode=ro", uri=True)
        self.tokens = dict(db.execute("SELECT device, id FROM enrolments WHERE used_at != 0"))
        self.devices = dict(db.execute("SELECT id, lower(hex(kem_key_id)) FROM devices"))
        self.certificates = collections.Counter(d for d, in db.execute("SELECT device FROM certificates"))
        self.deployments = dict(db.execute("SELECT id, device FROM deployments"))
        self.updates = {(dep, dev): (state, seq) for dep, dev, state, seq in
                        db.execute("SELECT deployment, device, state, seq FROM updates")}
        self.grants = {(h, kem): vault for h, kem, vault in
                       db.execute("SELECT lower(hex(h)), lower(hex(kem_key_id)), vault FROM grants")}
        rows = list(db.execute("SELECT action, target, detail FROM audit WHERE outcome = 'ok'"))
        db.close()
        self.told = collections.Counter((action, target) for action, target, _ in rows)
        self.told_of = collections.Counter((action, *detail.replace(":", " ").split()[:2]) for action, _, detail in rows)

    def check(self, world):
        """No half state: each change is there with all that belongs to it and with its audit row, once."""
        told, told_of = self.told, self.told_of
        assert set(self.tokens) == set(self.devices), "a token used without a device, or a device without a token"
        for device in self.devices:
            assert told["device.enrol", f"device:{device}"] == 1
            assert self.certificates[device] == 1 + told["device.renew", f"device:{device}"], "certificates and their rows"
        assert set(self.certificates) == set(self.devices)
        for deployment, device in self.deployments.items():
            assert told_of["deployment.create", "deployment", deployment] == 1
            assert (deployment, device) in self.updates, "a deployment without its device's update"
        assert len(self.updates) == len(self.deployments)
        for (deployment, device), (state, seq) in self.updates.items():
            offered, grant = state != 0, (world.h, self.devices[device])
            assert told_of["deployment.offer", "deployment", deployment] == offered
            assert told["grant.vault", f"device:{device}"] == offered == (grant in self.grants), "an offer without its grant"
            assert told["update.report", f"update:{deployment}"] == seq
            assert told["package.fetch", f"device:{device}"] == (seq >= 2), "reports 2 and later say that it has the package"
        for (h, kem), vault in self.grants.items():
            assert (h == world.h) == bool(vault) and (vault or told["grant.put", f"kem-key:{kem}"] >= 1)
        for action, target in told:
            assert action != "grant.put" or (world.h_author, target.partition(":")[2]) in self.grants, "a row without its grant"

    def has(self, acknowledged, world):
        for token, device in acknowledged["enrol"]:
            assert self.tokens.get(device) == token
        for deployment in acknowledged["deploy"]:
            assert deployment in self.deployments
        for update in acknowledged["offer"]:
            assert self.updates[update][0] != 0
        for kem, times in collections.Counter(acknowledged["grant"]).items():
            assert (world.h_author, kem) in self.grants and self.told["grant.put", f"kem-key:{kem}"] >= times
        for deployment, device, seq in acknowledged["report"]:
            assert self.updates[deployment, device][1] >= seq
        for device, _ in acknowledged["renew"]:
            assert self.certificates[device] == 2


def test_kill_9_in_every_step_of_updates(tmp_path, author):
    world = World(tmp_path, author)
    platform, rng = world.platform, random.Random(int(os.environ.get("TG_SEED", "1")))
    acknowledged, cut = {step: [] for step in STEPS}, collections.Counter()
    for step in 2 * STEPS:
        lives = [Lives(world, n) for n in range(3)]
        for thread in lives:
            thread.start()
        world.kill_in(step, rng.randint(4, 9), rng.uniform(0, 0.012))
        for thread in lives:
            thread.join()
            assert thread.failure is None, thread.failure
            cut[thread.now] += 1
            for kind, facts in thread.acknowledged.items():
                acknowledged[kind] += facts
        platform.start()
        assert platform.admin().get("/api/v1/audit/verify").json["ok"]
        stored = Stored(platform)
        stored.check(world)
        stored.has(acknowledged, world)
        for device, certificate in acknowledged["renew"][-2:]:  # as good as the device's word for it
            client = lives[0].client(certificate, device)
            assert client.post("/device/v1/checkin", {"agent_version": "0.1.0", "separation": False}, expect=200).json["deployments"]
    print("acknowledged", {kind: len(facts) for kind, facts in acknowledged.items()}, "cut off", dict(cut))
    assert all(acknowledged.values()), "each kind went through at least once"
    assert len([kind for kind in cut if kind is not None]) >= 3, f"hardly a request was in flight: {cut}"
    assert platform.stop() == 0
