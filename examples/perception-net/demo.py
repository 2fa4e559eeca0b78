#!/usr/bin/python3
"""make demo: a model's whole way, from its author to predictions on two devices, on this machine alone.

Everything happens on loopback in one temporary folder. Every ✓ was checked; the last line says how many,
and the exit status is 0 only if none failed. Set TENSORGUARD_BUILD to use another build folder and
TENSORGUARD_DEMO_KEEP=1 to keep the temporary folder.
"""
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile
import time

from demo_kit import (Hammer, Programs, Screen, Stop, furthest, load, needles, places_to_search, protection_here,
                      score, search, tls_version, wait_for)

HERE = pathlib.Path(__file__).resolve().parent
MODEL = "perception-net"
FLEET = "robots"


class Demo:
    def __init__(self, folder, build):
        self.dir = pathlib.Path(folder)
        self.keys, self.config = self.dir / "author", self.dir / "config"
        self.platform_dir = self.dir / "platform"
        self.screen = Screen()
        self.programs = Programs(build, self.config)
        self.begun = time.time() - 2
        self.devices = []
        self.images = load(HERE / "heldout" / "images.npy")
        self.labels = load(HERE / "heldout" / "labels.npy")
        self.logits = {v: load(HERE / "heldout" / f"logits_{v}.npy") for v in ("v1", "v2")}
        self.check, self.need, self.say = self.screen.check, self.screen.need, self.screen.say

    # ---- the author ----

    def make_keys(self):
        p = self.programs
        for who in ("author", "stranger"):
            for kind in ("signing", "encryption"):
                p.cli("keygen", "--type", kind, "--out", self.dir / who)
        blocks = [(self.keys / f).read_text().count("-----BEGIN ") for f in sorted(os.listdir(self.keys))]
        self.check("hybrid key pairs, classical and post-quantum: Ed25519 + ML-DSA-65, X25519 + ML-KEM-768", blocks == [2] * 4)
        modes = [stat.S_IMODE(f.stat().st_mode) for f in self.keys.glob("*.priv")]
        self.check("private keys are readable by their owner alone (0600)", modes == [0o600] * 2, str(modes))

    def pack(self, version, *more, who="author", out=None):
        """Build one version of the model; returns (path, what build said)."""
        out = self.dir / (out or f"{version}.tgsp")
        said = self.programs.json("build", "--input-dir", HERE / f"model_{version}", "--out", out, "--signing-key",
                                  self.dir / who / "signing.priv", "--model-name", MODEL, "--model-version", version, *more)
        return out, said

    def build_v1(self):
        self.v1, said = self.pack("v1")
        self.h1 = said["package"]
        size = os.path.getsize(self.v1)
        self.check(f"packed {said['files']} files, {size:,} bytes; recognised as {said['format']}", said["format"] == "onnx")
        hits = search([self.dir], self.secrets())[0]
        self.check("the package shows no piece of the model", not hits, str(hits))

    def verify_v1(self):
        r = self.programs.json("verify", self.v1, "--trust", self.keys / "signing.pub")
        self.check("both halves of the author's signature and every chunk verify", r["verified"] and r["package"] == self.h1)
        self.say(f"package {self.h1[:16]}… (H: its name from now on)")
        restored = self.dir / "restored"
        self.programs.cli("open", self.v1, "--key", self.keys / "encryption.priv", "--trust", self.keys / "signing.pub",
                          "--out-dir", restored)
        same = (restored / "model.onnx").read_bytes() == (HERE / "model_v1" / "model.onnx").read_bytes()
        shutil.rmtree(restored)  # the author's own copy; it must not be found by the search below
        self.check("its recipient opens it and gets the same files back", same)

    # ---- the platform and the devices ----

    def start_platform(self):
        p = self.programs
        self.platform = p.start("tensorguard-platform", self.dir / "platform.log", "--data-dir", self.platform_dir,
                                "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0", "--poll", "1")
        where = self.platform_dir / "run" / "endpoints.json"

        def ready():
            if self.platform.poll() is not None:
                raise Stop("the platform ended: " + pathlib.Path(self.platform.log).read_text()[-600:])
            try:
                return json.loads(where.read_text())
            except (OSError, ValueError):
                return None
        self.endpoints = wait_for("the platform's first start", ready)
        said = p.platform_json("login", "--server", self.endpoints["api_url"], "--token-file",
                               self.platform_dir / "admin.token", "--ca", self.platform_dir / "ca.pem")
        spoken = [tls_version(self.endpoints[which], self.platform_dir / "ca.pem") for which in ("api_url", "device_url")]
        self.check("first start made database, keys and certificates; both listeners speak TLS 1.3", spoken == ["TLSv1.3"] * 2,
                   str(spoken))
        old = [tls_version(self.endpoints[which], self.platform_dir / "ca.pem", old=True) for which in ("api_url", "device_url")]
        self.check("and nothing older", old == [None] * 2, str(old))
        self.check("the one-time token was exchanged for a lasting one", said["role"] == "admin")
        p.platform_json("publisher", "add", "--name", "author", "--key", self.keys / "signing.pub")
        p.platform_json("fleet", "create", FLEET)

    def enrol(self):
        p = self.programs
        protection = protection_here()
        for name in ("robot-1", "robot-2"):
            folder = self.dir / name
            folder.mkdir()
            token = folder / "token"
            p.platform_json("enrolment-token", "create", "--fleet", FLEET, "--out", token)
            said = json.loads(p.run(
                "tensorguard-agent", "enroll", "--server", self.endpoints["device_url"], "--token-file", token, "--ca",
                self.platform_dir / "ca.pem", "--fleet", FLEET, "--platform-key", self.config / "platform.pub", "--trust",
                self.keys / "signing.pub", "--state-dir", folder / "state", "--worker", p.path("tensorguard-moai"), "--name",
                name, "--predict-socket", folder / "predict.sock", "--protection", protection, "--json").stdout)
            agent = p.start("tensorguard-agent", folder / "agent.log", "run", "--state-dir", folder / "state")
            self.devices.append({"name": name, "dir": folder, "id": said["device_id"], "kem": said["kem_key_id"],
                                 "socket": folder / "predict.sock", "agent": agent})
        listed = p.platform_json("device", "list")["devices"]
        self.need("two devices enrolled themselves with one-time tokens and their own keys",
                  {d["id"] for d in listed} == {d["id"] for d in self.devices})
        again = p.run("tensorguard-agent", "enroll", "--server", self.endpoints["device_url"], "--token-file",
                      self.dir / "robot-1" / "token", "--ca", self.platform_dir / "ca.pem", "--fleet", FLEET,
                      "--platform-key", self.config / "platform.pub", "--trust", self.keys / "signing.pub", "--state-dir",
                      self.dir / "thief", "--worker", p.path("tensorguard-moai"), ok=None)
        self.check("a token works once: the second use is refused", again.returncode != 0, again.stdout)

    def publish_v1(self):
        # The author notes each device's key id where it was made: the platform's word is not needed.
        pins = self.dir / "robots.pins"
        pins.write_text("".join(f"{d['id']} {d['kem']} {d['name']}\n" for d in self.devices))
        said = self.programs.platform_json("publish", self.v1, "--part-size", "65536", "--grant-fleet", FLEET, "--pins", pins,
                                           "--signing-key", self.keys / "signing.priv")
        self.check(f"uploaded in {said['parts']} parts; signature checked against the registered publisher",
                   said["package"] == self.h1)
        self.check("grants made on the author's machine for pinned keys: the platform can't decrypt this package",
                   len(said["grants"]) == 2 and said["on_platform_word"] == 0 and not said["vault"])

    def deploy(self, package, *more):
        return self.programs.cli("deploy", "--package", package, *(more or ("--fleet", FLEET)), "--wait", "--timeout", "40s",
                                 "--config", self.config, "--json", ok=None)

    def deploy_v1(self):
        done = self.deploy(self.h1)
        self.need("both devices fetched, verified and decrypted it, and report it running",
                  done.returncode == 0 and json.loads(done.stdout)["counts"]["running"] == 2, done.stdout + done.stderr)
        asked = protection_here()
        for d in self.devices:
            said = json.loads(self.programs.run("tensorguard-agent", "status", "--state-dir", d["dir"] / "state", "--json").stdout)
            got = said["serving"].get("protection")
            why = "" if asked == "locked" else " (RLIMIT_MEMLOCK leaves no room for more: ulimit -l)"
            self.check(f"{d['name']}: its worker's memory has protection level {got}{why}",
                       got == "locked" or (asked == "any" and got == "none"))

    # ---- predictions ----

    def predict_all(self, version):
        for d in self.devices:
            out = d["dir"] / f"logits_{version}.npy"
            self.programs.cli("predict", "--socket", d["socket"], "--model", MODEL, "--input",
                              HERE / "heldout" / "images.npy", "--output", out)
            got = load(out)
            off, right = furthest(got, self.logits[version]), score(got, self.labels)
            self.check(f"{d['name']}: {got.rows_n} held-out images, largest difference from PyTorch {off:.1e}", off < 1e-4)
            self.check(f"{d['name']}: {right:.2%} of the digits are right", right >= 0.95)

    # ---- what must be refused ----

    def refused(self, what, package, word):
        """verify and publish must both refuse; shows the words."""
        v = self.programs.cli("verify", package, "--trust", self.keys / "signing.pub", ok=None)
        self.check(f"{what}: `verify` refuses (exit {v.returncode}, not authentic)", v.returncode == 5, v.stdout + v.stderr)
        self.say(v.stderr.strip().replace(str(self.dir) + "/", ""))
        r = self.programs.cli("publish", package, "--config", self.config, ok=None)
        self.check(f"{what}: the platform refuses it, too", r.returncode in (4, 5) and word in r.stderr, r.stdout + r.stderr)
        self.say(r.stderr.strip().replace(str(self.dir) + "/", ""))

    def refuse(self):
        raw = bytearray(self.v1.read_bytes())
        raw[len(raw) // 2] ^= 1
        tampered = self.dir / "tampered.tgsp"
        tampered.write_bytes(raw)
        self.refused("one bit changed", tampered, "digest")
        recipients = [a for d in self.devices for a in ("--recipient", d["dir"] / "state" / "kem.pub")]
        forged, said = self.pack("v2", *recipients, who="stranger", out="forged.tgsp")
        self.refused("signed by a stranger", forged, "trusted key")
        # Now the platform's administrator is on the stranger's side.
        self.programs.platform_json("publisher", "add", "--name", "stranger", "--key", self.dir / "stranger" / "signing.pub")
        self.programs.platform_json("publish", forged)
        done = self.deploy(said["package"], "--device", self.devices[0]["id"])
        updates = json.loads(done.stdout or "{}").get("updates", [])
        self.check("even when the platform deploys the stranger's package, the device refuses it",
                   done.returncode == 9 and len(updates) == 1 and updates[0]["state"] == "failed", done.stdout + done.stderr)
        if updates:
            self.say(f"{updates[0].get('code')}: {updates[0].get('reason')}")
        health = self.programs.cli("predict", "--socket", self.devices[0]["socket"], "--model", MODEL, "--model-version", "v1",
                                   "--input", HERE / "model_v1" / "golden" / "case0.input.npy", ok=None)
        self.check("and goes on serving version v1", health.returncode == 0, health.stderr)

    # ---- version 2 ----

    def swap(self):
        v2, said = self.pack("v2", "--recipient", self.config / "vault.pub", "--recipient", self.keys / "encryption.pub")
        self.programs.platform_json("publish", v2)
        self.say("this one is encrypted to the platform's vault, which makes the grants")
        hammers = [Hammer(d["socket"], MODEL, self.images, self.logits) for d in self.devices]
        wait_for("the first answers", lambda: all(h.counts.get("v1", 0) >= 20 or h.failures for h in hammers))
        done = self.deploy(said["package"])
        self.check("version v2 runs on both devices", done.returncode == 0, done.stdout + done.stderr)
        with_end = time.monotonic() + 15
        while time.monotonic() < with_end and not all(h.counts.get("v2", 0) >= 20 for h in hammers):
            time.sleep(0.02)
        for h, d in zip(hammers, self.devices):
            h.finish()
            counts = ", ".join(f"{n} by {v}" for v, n in sorted(h.counts.items()))
            self.check(f"{d['name']}: not one request failed or was answered wrongly meanwhile ({counts}; slowest "
                       f"{h.slowest * 1000:.0f} ms)", not h.failures and h.counts.get("v2", 0) >= 20, "; ".join(h.failures[:3]))
        self.predict_all("v2")

    # ---- afterwards ----

    def secrets(self):
        return needles(HERE / "model_v1" / "model.onnx") + needles(HERE / "model_v2" / "model.onnx")

    def look_for_plaintext(self):
        pieces = self.secrets()
        control = search([HERE / "model_v1"], pieces)[0]
        self.check(f"the search works: its {len(pieces)} pieces of the models are found in the author's own folder", control != [])
        own = [self.dir / "platform", *(d["dir"] for d in self.devices)]
        hits, files, size = search(own, pieces)
        self.check(f"no plaintext in the agents' folders and the platform's data ({files} files, {size:,} bytes)", not hits, str(hits))
        hits, files, size = search(places_to_search(self.dir), pieces[::3], self.begun, seconds=20)
        self.check(f"none in temporary and home folders, in anything written since the demo began ({files} files, {size:,} bytes)",
                   not hits, str(hits))

    def audit(self):
        p = self.programs
        log = p.platform_json("audit", "--package", self.h1)["audit"]
        actions = [row["action"] for row in log]
        story = ["package.accept", "grant.put", "deployment.create", "package.fetch", "update.report"]
        self.check("the audit log tells the package's story: " + ", ".join(story),
                   all(a in actions for a in story), str(actions))
        self.check("and its hash chain is intact", p.platform_json("audit", "verify")["ok"])

    def stop(self):
        codes = [self.programs.end(d["agent"]) for d in self.devices] + [self.programs.end(self.platform)]
        self.check("agents and platform drain and stop on SIGTERM", codes == [0, 0, 0], str(codes))

    def tell(self):
        s = self.screen
        steps = [("Keys", self.make_keys), ("Build: pack, encrypt, sign", self.build_v1), ("Verify", self.verify_v1),
                 ("Platform", self.start_platform), ("Two devices enrol", self.enrol), ("Publish", self.publish_v1),
                 ("Deploy, fetch, verify, decrypt into memory", self.deploy_v1), ("Predict", lambda: self.predict_all("v1")),
                 ("Forgeries", self.refuse), ("Version 2 under load", self.swap), ("Audit log", self.audit),
                 ("Search for plaintext", self.look_for_plaintext), ("Stop", self.stop)]
        s.line(s.paint("1", "TensorGuard: a model's way from its author to two devices") + f"   ({self.dir})")
        for name, part in steps:
            with s.step(name):
                part()

    def logs(self):
        for path in sorted(self.dir.glob("*.log")) + sorted(self.dir.glob("*/*.log")):
            lines = path.read_text(errors="replace").splitlines()[-12:]
            self.screen.line(f"\n-- the end of {path.name} ({path.parent.name}):\n" + "\n".join(lines))


def main():
    os.umask(0o077)
    build = os.environ.get("TENSORGUARD_BUILD") or HERE.parent.parent / "build"
    # A Unix socket's path has at most 107 bytes, and the devices' sockets lie in this folder.
    folder = tempfile.mkdtemp(prefix="tensorguard-demo-", dir="/tmp" if len(tempfile.gettempdir()) > 60 else None)
    demo = Demo(folder, build)
    code = 1
    try:
        missing = demo.programs.missing()
        if missing:
            raise Stop(f"not built: {', '.join(missing)} (run `make build`)")
        demo.tell()
    except (Stop, OSError, ValueError, KeyError, subprocess.SubprocessError) as e:
        demo.screen.failed += 1
        demo.screen.line(f"\n   stopped: {e if isinstance(e, Stop) else repr(e)}")
    except KeyboardInterrupt:
        demo.screen.failed += 1
        demo.screen.line("\n   interrupted")
        code = 130
    finally:
        demo.programs.interrupts.held = True  # a second Ctrl-C must not leave half of it running
        demo.programs.end_all()
    failed = demo.screen.failed
    if failed and code != 130:
        demo.logs()
    if demo.screen.rows:
        demo.screen.table()
    if os.environ.get("TENSORGUARD_DEMO_KEEP"):
        demo.screen.line(f"\nkept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    demo.screen.line(f"\ndemo: {demo.screen.passed} checks passed, {failed} failed")
    return 0 if failed == 0 else code


if __name__ == "__main__":
    sys.exit(main())
