"""Enrol, update, swap, restart: the agent's ordinary life, and what it leaves on the disk."""
import ctypes
import hashlib
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import stat
import time

import pytest

import programs
import tg
import tg_agent


def test_enrol_update_swap_restart(world):
    a = world.agent().enrol()
    assert stat.S_IMODE(a.state.stat().st_mode) == 0o700
    assert stat.S_IMODE((a.state / "device.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((a.state / "kem" / "kem.priv").stat().st_mode) == 0o600
    h1, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    assert a.serves(1)
    assert stat.S_IMODE(a.socket.stat().st_mode) == 0o660

    h2, two = world.ship(2)
    world.wait_update(two, a.id, "running")
    a.wait_serving("2")
    assert a.serves(2)
    s = a.status()
    assert s["agent"] == "running" and s["online"]
    assert s["serving"]["header_sha256"] == h2 and s["previous"]["header_sha256"] == h1
    assert sorted(p.name for p in (a.state / "packages").iterdir()) == sorted([f"{h1}.tgsp", f"{h2}.tgsp"])

    h3, three = world.ship(1)  # a third: the first is not kept
    world.wait_update(three, a.id, "running")
    tg.wait_for("pruning", lambda: sorted(p.name for p in (a.state / "packages").iterdir()) ==
                sorted([f"{h2}.tgsp", f"{h3}.tgsp"]))
    assert a.stop() == 0
    assert not a.socket.exists()
    assert not tg_agent.worker_pids(a.process.pid)
    assert a.status()["agent"] == "stopped"


def test_swap_without_a_failed_request(world):
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    load = tg_agent.Load(a)
    tg.wait_for("load", lambda: load.good > 20)
    for model in (2, 1, 2):
        _, d = world.ship(model)
        world.wait_update(d, a.id, "running")
        tg.wait_for("the new version's answers", lambda m=model: load.versions[-1] == m)
    tg.wait_for("the old workers' end", lambda: len(tg_agent.worker_pids(a.process.pid)) == 1)
    load.stop()
    assert load.failed == []
    assert load.versions == [1, 2, 1, 2]
    assert load.good > 100


def test_restarts_from_its_cache_without_a_network(world):
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    a.kill()
    world.platform.kill()
    began = time.monotonic()
    a.start()
    a.wait_serving("1")
    took = time.monotonic() - began
    assert a.serves(1)
    if not programs.sanitized():
        assert took < 15, f"{took:.2f} s from start to ready"  # make bench has the figure; this machine may be busy
    s = a.wait_status("offline", lambda s: s.get("platform_reason"))
    assert not s["online"] and s["platform_code"] in ("IO", "CLOSED")
    world.platform.start()  # on another port: it stays offline, and serves on
    assert a.serves(1)


def test_once(world):
    a = world.agent().enrol()
    _, one = world.ship(1)
    done = a.once("--json")
    s = json.loads(done.stdout)
    assert s["agent"] == "stopped" and s["update"]["step"] == "running"
    assert world.update(one, a.id)["state"] == "running"
    a.once()  # nothing new
    world.platform.kill()
    done = a.once(ok=False)
    assert done.returncode != 0 and "127.0.0.1" in done.stderr


def test_no_plaintext_on_the_disk(world):
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    assert a.serves(1)
    model = world.files(1)["model.onnx"]
    pieces = [model[i:i + 64] for i in range(0, len(model) - 64, 997)]
    for folder in (a.dir, pathlib.Path(world.platform.dir)):
        for path in folder.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert not any(p in data for p in pieces), path


def test_the_agent_never_opens_the_kem_key(world):
    """The agent's own descriptors, at every look while it starts a worker, lead to no kem.priv."""
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    seen = set()

    def look():
        for fd in pathlib.Path(f"/proc/{a.process.pid}/fd").iterdir():
            try:
                seen.add(os.readlink(fd))
            except OSError:
                pass
        return world.update(one, a.id)["state"] == "running"

    tg.wait_for("running", look, every=0.001)
    assert not [s for s in seen if "kem.priv" in s]
    assert any("lock" in s for s in seen)  # the look does see files


def runs_as_nobody(program):
    """False where another user cannot reach the program or its libraries: a checkout below root's own home."""
    try:
        return subprocess.run([program, "--help"], user="nobody", group="nogroup", extra_groups=[],
                              capture_output=True).returncode == 0
    except PermissionError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a worker as another user")
def test_worker_of_another_user(world):
    if not runs_as_nobody(programs.path("tensorguard-moai")):
        pytest.skip("another user cannot run the worker where this checkout lies")
    a = world.agent().enrol("--worker-user", "nobody")
    import pwd
    uid = pwd.getpwnam("nobody").pw_uid
    assert (a.state / "kem" / "kem.priv").stat().st_uid == uid
    assert (a.state / "kem").stat().st_uid == uid
    assert (a.state / "device.key").stat().st_uid == 0
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    assert a.serves(1)
    s = a.status()
    assert s["separation"] and s["worker_user"] == "nobody"
    status = pathlib.Path(f"/proc/{s['serving']['pid']}/status").read_text()
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    assert world.api.get(f"/api/v1/devices/{a.id}").json["separation"] is True


def test_the_level_of_memory_is_told(world):
    """What the worker says when healthy stands in the agent's status and, from the next check-in, on the platform."""
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    level = {"locked": "locked", "any": "none"}[programs.protection()]
    assert a.status()["serving"]["protection"] == level
    shown = tg.run(programs.path("tensorguard-agent"), "status", "--state-dir", a.state).stdout
    assert f"memory        {level}" in shown
    tg.wait_for("the platform heard of it", lambda: world.api.get(f"/api/v1/devices/{a.id}").json.get("protection") == level)


def test_an_agent_asked_for_more_than_there_is_says_what_to_do(world):
    a = world.agent()
    a.protection = "most"
    assert "secret, locked or any" in a.enrol(ok=False).stderr


def test_a_level_that_cannot_be_had_is_reported(world):
    """The device goes on asking: memory may be allowed later."""
    a = world.agent().enrol()
    settings = json.loads((a.state / "agent.json").read_text())
    assert settings["protection"] == programs.protection()
    _, one = world.ship(1)

    def tight():
        """No right to lock memory, and none to lift the limit, for the agent and what it starts."""
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        for cap_ipc_lock_or_resource in (14, 24):
            ctypes.CDLL(None).prctl(24, cap_ipc_lock_or_resource, 0, 0, 0)  # PR_CAPBSET_DROP

    a.start("--protection", "secret", preexec_fn=tight)
    s = a.wait_status("refused", lambda s: "LimitMEMLOCK" in s.get("update", {}).get("reason", ""))
    assert s["update"]["code"] == "NOMEM" and "--protection secret" in s["update"]["reason"]


def test_absent_separation_is_said(world):
    a = world.agent()
    done = tg.run(*a.enrol_argv(world.token()))
    assert "separation of users is absent" in done.stdout
    a.start()
    s = a.wait_status("online", lambda s: s["online"])
    assert s["separation"] is False
    shown = tg.run(programs.path("tensorguard-agent"), "status", "--state-dir", a.state).stdout
    assert "separation    absent" in shown


def test_loopback_tcp_needs_its_token(world, tmp_path):
    token = tmp_path / "tcp.token"
    token.write_text("s3cret-for-clients\n")
    a = world.agent().enrol("--predict-tcp", "0", "--tcp-token-file", token)
    assert b"s3cret" not in (a.state / "agent.json").read_bytes()
    assert hashlib.sha256(b"s3cret-for-clients").hexdigest() in (a.state / "agent.json").read_text()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    port = a.status()["predict_tcp"]
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with pytest.raises(AssertionError, match="401"):
        tg_agent.infer(connection)
    connection.close()
    got = tg_agent.infer(connection, {"Authorization": "Bearer s3cret-for-clients"})
    assert got.shape == (8, 10)


def test_sigterm_answers_what_is_in_flight(world):
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    load = tg_agent.Load(a)
    tg.wait_for("load", lambda: load.good > 10)
    a.process.send_signal(signal.SIGTERM)
    assert a.wait_exit() == 0
    load.stop()
    # only "nobody listens any more" may have failed, never an answer that had begun
    assert all("FileNotFoundError" in f or "ConnectionRefused" in f or "ConnectionReset" in f or "RemoteDisconnected" in f
               for f in load.failed), load.failed[:3]


def test_sigterm_while_the_platform_does_not_answer(world):
    """Something takes the connection and never says a word: stopping does not wait for it."""
    silent = socket.create_server(("127.0.0.1", 0))
    a = world.agent().enrol()
    settings = json.loads((a.state / "agent.json").read_text())
    settings["server"] = f"https://127.0.0.1:{silent.getsockname()[1]}"
    (a.state / "agent.json").write_text(json.dumps(settings))
    a.start()
    connection, _ = silent.accept()
    time.sleep(0.3)
    began = time.monotonic()
    assert a.stop() == 0
    assert time.monotonic() - began < 8
    connection.close()
    silent.close()


def test_one_agent_per_folder(world):
    a = world.agent().enrol()
    a.start()
    a.wait_status("online", lambda s: s["online"])
    done = tg.run(*a.argv("--once"), ok=False)
    assert f"another agent (pid {a.process.pid})" in done.stderr
    assert a.process.poll() is None


def test_idle_agent_is_small(world):
    if programs.sanitized():
        pytest.skip("sanitizers take memory of their own")
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    time.sleep(1)
    rollup = pathlib.Path(f"/proc/{a.process.pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss <= 12 * 1024, f"{pss} KiB"


def test_renewal(world):
    a = world.agent().enrol()
    before = (a.state / "device.crt").read_bytes()
    a.start("--renew-after", "0")
    tg.wait_for("a new certificate", lambda: (a.state / "device.crt").read_bytes() != before)
    _, one = world.ship(1)  # and it works with it
    world.wait_update(one, a.id, "running")
    actions = [e["action"] for e in world.api.get("/api/v1/audit?action=device.renew").json["items"]]
    assert actions == ["device.renew"]  # once, not in a circle
    text = tg.run(programs.openssl(), "x509", "-in", a.state / "device.crt", "-noout", "-subject").stdout
    assert a.id in text
    a.kill()
    a.start()
    a.wait_status("online again", lambda s: s["online"])


def test_reports_reach_the_platform_later(world):
    """A device that is cut off while it switches tells of it when it is back, also after a restart."""
    proxy = tg_agent.Proxy(world.platform.device_url)
    a = world.agent()
    a.server = proxy.url
    a.enrol()
    _, one = world.ship(1)
    a.start("--kill-at", "running")
    assert a.wait_exit() == -signal.SIGKILL
    proxy.drop()
    a.start()
    a.wait_serving("1")
    assert a.wait_status("queued", lambda s: s["reports_queued"] > 0 and not s["online"])
    assert world.update(one, a.id)["state"] != "running"
    a.kill()
    proxy.down = False
    a.start()
    world.wait_update(one, a.id, "running")
    a.wait_status("delivered", lambda s: s["reports_queued"] == 0)
    proxy.close()


def test_audit_tells_a_packages_story(world):
    a = world.agent().enrol()
    h, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    world.ship(2)  # another package's story is another
    rows = world.api.get(f"/api/v1/audit?package={h}").json["items"]
    story = [e["action"] if e["action"] != "update.report" else e["detail"] for e in rows]
    in_order = ["package.accept", "deployment.create", "deployment.offer", "downloading", "package.fetch", "downloaded",
                "loading", "running"]
    assert [s for s in story if s in in_order] == in_order, story
    [fetched] = [e for e in rows if e["action"] == "package.fetch"]
    assert fetched["actor"] == fetched["target"] == f"device:{a.id}"
