"""What goes wrong: cut connections, full disks, kill -9 at every step, workers that crash and hang."""
import json
import os
import random
import re
import signal
import subprocess
import time

import pytest

import tg
import tg_agent

STEPS = ("accepted", "fetched", "trying", "healthy", "recorded", "switched", "running")


def big(world, n=6_000_000):
    return {**world.files(1), "weights.bin": os.urandom(n)}


def test_cut_connections_are_resumed(proxied):
    world, proxy, a = proxied
    h, one = world.ship(1, files=big(world))
    size = next((p for p in [world.api.get(f"/api/v1/packages/{h}").json])).get("blob_size") or 6_000_000
    proxy.cut_after = 1_200_000
    a.start()
    world.wait_update(one, a.id, "running", deadline=60)
    assert a.serves(1)
    assert proxy.cuts >= 3
    assert proxy.bytes < size * 1.4, f"{proxy.bytes} bytes moved for {size}: it did not resume"


def test_download_goes_on_after_kill_and_restart(proxied):
    world, proxy, a = proxied
    h, one = world.ship(1, files=big(world))
    proxy.cut_after = 1_200_000
    part = a.state / "packages" / f"{h}.part"
    for n in range(1, 4):
        a.start()
        tg.wait_for("bytes", lambda: tg_agent.fetched(part) > n * 400_000)
        a.kill()
    have, moved = tg_agent.fetched(part), proxy.bytes
    assert have > 1_200_000
    proxy.cut_after = None
    a.start()
    world.wait_update(one, a.id, "running")
    assert proxy.bytes - moved < 6_300_000 - have + 300_000, "it began again instead of going on"
    assert not part.exists()


def test_platform_that_goes_away_in_the_middle(proxied):
    world, proxy, a = proxied
    h, one = world.ship(1, files=big(world))
    part = a.state / "packages" / f"{h}.part"
    proxy.cut_after = 1_500_000
    a.start()
    tg.wait_for("bytes", lambda: tg_agent.fetched(part) > 500_000)
    world.platform.kill()
    s = a.wait_status("offline", lambda s: not s["online"] and s.get("platform_reason"))
    assert s["update"]["step"] == "accepted"
    proxy.cut_after = None
    world.platform.start()
    proxy.target = ("127.0.0.1", int(world.platform.device_url.rsplit(":", 1)[1]))
    a.poke()
    world.api = world.platform.admin()
    world.wait_update(one, a.id, "running", deadline=60)


@pytest.fixture
def small(tmp_path):
    """A file system of 9 MiB."""
    if os.geteuid() != 0:
        pytest.skip("a small file system has to be mounted: root only")
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m,mode=0700", "tmpfs", str(folder)], capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder):
    """Leave not a byte free; the file that takes the room."""
    path = folder / "filler"
    with open(path, "wb", buffering=0) as f:
        for size in (1 << 20, 4096, 1):
            try:
                while f.write(b"x" * size):
                    pass
            except OSError:
                pass
    return path


def test_disk_full(world, small):
    a = world.agent()
    a.state = small / "state"
    a.enrol()
    _, one = world.ship(1)
    a.start()
    try:
        world.wait_update(one, a.id, "running")
        _, two = world.ship(2, files={**world.files(2), "weights.bin": os.urandom(8_000_000)})
        u = world.wait_update(two, a.id, "failed")
        assert u["code"] == "LIMIT" and "disk full" in u["reason"] and "free" in u["reason"], u
        assert a.serves(1)
        s = a.status()
        assert s["update"]["step"] == "accepted" and "disk full" in s["update"]["reason"]
        assert subprocess.run(["mount", "-o", "remount,size=40m", str(small)]).returncode == 0
        world.wait_update(two, a.id, "running")  # it goes on by itself when there is room
        assert a.serves(2)
        a.stop()
    finally:
        a.end()


def test_disk_full_to_the_last_byte(world, small):
    """Not even a record can be written: what serves goes on, nothing half-written is believed, and it goes on when there is room."""
    a = world.agent()
    a.state = small / "state"
    a.enrol()
    _, one = world.ship(1)
    a.start()
    try:
        world.wait_update(one, a.id, "running")
        before = {name: (a.state / name).read_bytes() for name in ("rollback.json", "serving.json", "journal.json")}
        filler = fill(small)
        _, two = world.ship(2)
        tg.wait_for("the reason in the log", lambda: "No space left" in a.log_text())
        assert a.process.poll() is None and a.serves(1)
        assert before == {name: (a.state / name).read_bytes() for name in before}
        a.kill()
        a.start()  # nor does a start need room
        tg.wait_for("serving from the cache", lambda: a.socket.exists() and serves(a, 1))
        filler.unlink()
        a.poke()
        world.wait_update(two, a.id, "running", deadline=60)
        assert a.serves(2)
        a.stop()
    finally:
        a.end()


def serves(agent, version):
    try:
        return agent.serves(version)
    except OSError:
        return False


def test_enrolment_on_a_full_disk(world, small):
    a, token = world.agent(), world.token()
    a.state = small / "state"
    filler = fill(small)
    done = a.enrol(token=token, ok=False)
    assert done.returncode == 3 and "No space left" in done.stderr and str(a.state) in done.stderr, done.stderr
    filler.unlink()
    a.enrol(token=token)  # the token was not spent
    a.once()


def check_records(a, floor_before=0):
    """What must hold whenever the agent is dead: the record is ahead of, or level with, what serves."""
    record = json.loads((a.state / "rollback.json").read_text())
    serving = json.loads((a.state / "serving.json").read_text())
    for model in record["models"]:
        assert model["sequence"] >= floor_before
    return record, serving


def test_agent_killed_at_every_step(world):
    a = world.agent().enrol()
    _, one = world.ship(1, sequence=1)
    a.start()
    world.wait_update(one, a.id, "running")
    a.kill()
    model, last = 1, 0
    for n, step in enumerate(STEPS, 2):
        model = 3 - model
        h, d = world.ship(model, sequence=n)
        a.start("--kill-at", step)
        assert a.wait_exit() == -signal.SIGKILL, f"{step}: {a.log_text()[-2000:]}"
        record, _ = check_records(a, n - 1)
        a.start()
        world.wait_update(d, a.id, "running")
        a.wait_serving(str(model))
        assert a.serves(model), step
        outbox = json.loads((a.state / "outbox.json").read_text())
        assert outbox["last_seq"] > last
        last = outbox["last_seq"]
        a.kill()
        assert check_records(a, n)[1]["packages"][0]["header_sha256"] == h


def test_agent_and_platform_killed_at_every_step(proxied):
    world, proxy, a = proxied
    _, one = world.ship(1, sequence=1)
    a.start()
    world.wait_update(one, a.id, "running")
    a.kill()
    model = 1
    for n, step in enumerate(STEPS, 2):
        model = 3 - model
        _, d = world.ship(model, sequence=n)
        a.start("--kill-at", step)
        assert a.wait_exit() == -signal.SIGKILL
        world.platform.kill()
        a.start()
        a.wait_serving()  # what it has, without anybody
        world.platform.start()
        proxy.target = ("127.0.0.1", int(world.platform.device_url.rsplit(":", 1)[1]))
        world.api = world.platform.admin()
        a.poke()
        world.wait_update(d, a.id, "running")
        assert a.serves(model), step
        a.kill()
    assert world.api.get("/api/v1/audit/verify").json["ok"] is True


def test_agent_killed_at_any_moment(world):
    """Timed kills through whole updates; a seed is printed by pytest on failure."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    a = world.agent().enrol()
    _, one = world.ship(1, sequence=1)
    a.start()
    world.wait_update(one, a.id, "running")
    a.kill()
    model = 1
    for n in range(2, 8):
        model = 3 - model
        h, d = world.ship(model, sequence=n)
        for _ in range(2):
            a.start()
            time.sleep(rng.uniform(0.01, 0.6))
            a.kill()
            check_records(a, n - 1)
        a.start()
        world.wait_update(d, a.id, "running")
        a.wait_serving(str(model))
        assert a.serves(model)
        a.kill()
    (a.state / "status.json.0123456789abcdef.tmp").write_text("what a kill in the middle of a write leaves")
    a.start()
    a.wait_serving()
    tg.wait_for("tidying", lambda: not (a.state / "status.json.0123456789abcdef.tmp").exists())


def catch_worker(a, known, sig):
    """Wait for a new worker of the agent and send it a signal at once; its pid."""
    def fresh():
        return next((p for p in tg_agent.worker_pids(a.process.pid) if p not in known), None)
    pid = tg.wait_for("a new worker", fresh, every=0.0005)
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass
    return pid


# The real worker, with a child of its own between it and the agent: when the worker says that it loads, and the file
# holds the number of a signal, the child sends it that signal and passes nothing on any more.
CAUGHT = """
import os, pathlib, select, socket, sys
real, sig, argv = {real}, pathlib.Path({sig}), sys.argv[1:]
if argv[0] != "worker" or not sig.read_text():
    os.execv(real, [real, *argv])
at = argv.index("--control-fd") + 1
agent = socket.socket(fileno=int(argv[at]))
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
theirs.set_inheritable(True)
worker = os.getpid()
if os.fork():
    argv[at] = str(theirs.detach())
    agent.close()
    ours.close()
    os.execv(real, [real, *argv])
theirs.close()
while True:
    for s in select.select([agent, ours], [], [])[0]:
        text = s.recv(65536)
        if not text:
            os._exit(0)
        if s is ours and b'"loading"' in text:
            os.kill(worker, int(sig.read_text()))
            while agent.recv(65536):  # until the agent has had enough of it
                pass
            os._exit(0)
        (ours if s is agent else agent).send(text)
"""


@pytest.fixture
def caught(world, tmp_path):
    """An agent that serves version 1, and the file with the signal that its next workers get while they load."""
    def make(*options):
        sig = tmp_path / "signal"
        sig.write_text("")
        return world.agent().stand_in(CAUGHT, sig=sig).run_first(*options), sig
    return make


def test_worker_killed_while_loading_is_tried_again(world):
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    known = set(tg_agent.worker_pids(a.process.pid))
    _, two = world.ship(2)
    known.add(catch_worker(a, known, signal.SIGKILL))
    assert a.serves(1)
    world.wait_update(two, a.id, "running")
    assert a.serves(2)


def test_worker_killed_every_time_while_loading(world, caught):
    a, sig = caught()
    sig.write_text(str(int(signal.SIGKILL)))
    _, two = world.ship(2)
    u = world.wait_update(two, a.id, "failed")
    assert "the worker died while it loaded: signal 9 (Killed)" in u["reason"], u
    assert a.status()["update"]["tries"] == 3
    a.wait_serving("1")
    assert a.serves(1)
    a.kill()  # and it is not tried again by itself
    sig.write_text("")
    a.start()
    a.wait_serving("1")
    time.sleep(2)
    assert world.update(two, a.id)["state"] == "failed"
    _, three = world.ship(2)  # the operator says so again
    world.wait_update(three, a.id, "running")


def test_worker_that_hangs_while_loading(world, caught):
    a, sig = caught("--load-timeout", "2")
    sig.write_text(str(int(signal.SIGSTOP)))
    _, two = world.ship(2)
    u = world.wait_update(two, a.id, "failed")
    assert u["code"] == "TIMEOUT" and "the worker hung while" in u["reason"], u
    assert a.serves(1)
    assert len(tg_agent.worker_pids(a.process.pid)) == 1  # the hung ones are gone


def test_serving_worker_that_dies_comes_back(world):
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    pid = a.status()["serving"]["pid"]
    os.kill(pid, signal.SIGKILL)
    s = a.wait_status("a new worker", lambda s: s["serving"]["state"] == "serving" and s["serving"].get("pid") not in (None, pid))
    assert s["serving"]["restarts"] == 1
    assert a.serves(1)


def hang(a, seen):
    """Stop the worker that serves; the status once another one does."""
    pid = a.wait_status("a worker that serves", lambda s: s["serving"]["state"] == "serving" and
                        s["serving"].get("pid") not in (None, *seen))["serving"]["pid"]
    seen.add(pid)
    os.kill(pid, signal.SIGSTOP)
    return a.wait_status("a new worker", lambda s: s["serving"]["state"] == "serving" and
                         s["serving"].get("pid") not in (None, *seen))


def test_serving_worker_that_hangs_is_replaced(world):
    a = world.agent().enrol("--worker-timeout", "2")
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    seen = set()
    assert hang(a, seen)["serving"]["restarts"] == 1
    assert a.serves(1)
    assert seen.isdisjoint(tg_agent.worker_pids(a.process.pid))  # it is gone
    a.poke()
    reason = "the worker hung while serving: no answer for 2 s"
    tg.wait_for("the reason on the platform", lambda: reason in world.cli("status").stdout)
    assert reason in a.log_text()


def test_package_whose_worker_keeps_hanging_is_left_for_the_one_before(world):
    a = world.agent().enrol("--worker-timeout", "1")
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    _, two = world.ship(2)
    world.wait_update(two, a.id, "running")
    seen = set()
    for _ in range(3):
        hang(a, seen)
    u = world.wait_update(two, a.id, "rolled_back")
    assert "went back to perception-net 1" in u["reason"] and "hung while serving" in u["reason"], u
    a.wait_serving("1")
    assert a.serves(1)


def test_agent_that_was_stopped_takes_no_worker_for_hung(world):
    """An answer that waits unread, or a worker that was stopped together with the agent."""
    a = world.agent().enrol("--worker-timeout", "1")
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    pid = a.wait_serving()["serving"]["pid"]
    for both in ([a.process.pid], [pid, a.process.pid]) * 2:
        for p in both:
            os.kill(p, signal.SIGSTOP)
        time.sleep(2.5)  # above the limit and what counts as late
        for p in reversed(both):
            os.kill(p, signal.SIGCONT)
        assert a.serves(1)
    s = a.wait_serving()
    assert s["serving"]["pid"] == pid and "restarts" not in s["serving"], a.log_text()[-2000:]


# A worker between the agent and the real one: as often as the file says it dies when it is told to serve.
DIES = """
import os, pathlib, select, socket, subprocess, sys
real, left, argv = {real}, pathlib.Path({left}), sys.argv[1:]
if argv[0] != "worker" or int(left.read_text()) == 0:
    os.execv(real, [real, *argv])
at = argv.index("--control-fd") + 1
agent = socket.socket(fileno=int(argv[at]))
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
theirs.set_inheritable(True)
argv[at] = str(theirs.fileno())
child = subprocess.Popen([real, *argv], close_fds=False)
theirs.close()
while True:
    for s in select.select([agent, ours], [], [])[0]:
        text = s.recv(65536)
        if not text:
            os._exit(child.wait())
        if s is agent and b'"serve"' in text:
            left.write_text(str(int(left.read_text()) - 1))
            os._exit(7)
        (ours if s is agent else agent).send(text)
"""


# A worker's process whose owner writes what he likes to its standard error, then does its work.
LOUD = """
import os, sys, time
if sys.argv[1] == "worker":
    for i in range(20000):
        try:
            os.write(2, b"2026-01-01T00:00:00.000Z info  agent.healthy pid=1 forged=%d\\n" % i)
        except BlockingIOError:  # nobody waits for the agent to read
            time.sleep(0.001)
os.execv({real}, [{real}, *sys.argv[1:]])
"""


def test_worker_can_neither_fill_the_log_nor_write_in_the_agents_name(world):
    a = world.agent().stand_in(LOUD).run_first()
    assert a.serves(1)
    tg.wait_for("what was dropped is said", lambda: "log_lines_dropped=" in a.log_text())
    forged = [line for line in a.log_text().splitlines() if "forged=" in line]
    # at once, and one more each 200 ms since: far from what was written
    assert 1 <= len(forged) < 1000
    assert all(re.search(r" worker=\d+$", line) for line in forged)
    assert not [line for line in a.log_text().splitlines() if " agent." in line and "worker=" in line and "forged=" not in line]


def test_worker_writes_its_own_lines_and_no_librarys(world):
    """Debian 13's ONNX Runtime writes over a hundred of its own at each start."""
    a = world.agent().run_first()
    lines = [line for line in a.log_text().splitlines() if re.search(r" worker=\d+$", line)]
    assert len(lines) > 5
    assert [line for line in lines if not re.match(r"[0-9T:.Z-]+ (info|warn|error) +moai\.", line)] == []


@pytest.fixture
def dies(world, tmp_path):
    """An agent whose workers die when they are told to serve, and the file that says how often."""
    left = tmp_path / "left"
    left.write_text("0")
    return world, world.agent().stand_in(DIES, left=left).run_first(), left


def test_worker_that_dies_before_it_serves_costs_no_request(dies):
    world, a, left = dies
    load = tg_agent.Load(a)
    left.write_text("1")
    _, two = world.ship(2)
    world.wait_update(two, a.id, "running")
    tg.wait_for("answers of the new", lambda: 2 in load.versions)
    load.stop()
    assert load.failed == [] and load.versions == [1, 2], load.failed[:3]
    assert left.read_text() == "0" and "the worker died when it was to serve: exit status 7" in a.log_text()


def test_worker_that_always_dies_before_it_serves_is_given_up(dies):
    world, a, left = dies
    pid = a.wait_serving("1")["serving"]["pid"]
    load = tg_agent.Load(a)
    left.write_text("3")
    _, two = world.ship(2)
    u = world.wait_update(two, a.id, "failed")
    assert "the worker died when it was to serve" in u["reason"], u
    load.stop()
    assert load.failed == [] and load.versions == [1], load.failed[:3]
    s = a.wait_serving("1")
    assert s["serving"]["pid"] == pid and "restarts" not in s["serving"]
    assert left.read_text() == "0"
    a.kill()  # the rollback record allows what served before; another update works
    a.start()
    a.wait_serving("1")
    assert a.serves(1)
    _, three = world.ship(2)
    world.wait_update(three, a.id, "running")
    assert a.serves(2)


def test_package_whose_worker_keeps_dying_is_left_for_the_one_before(world):
    a = world.agent().enrol()
    h1, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    _, two = world.ship(2)
    world.wait_update(two, a.id, "running")
    seen = set()
    for _ in range(3):
        s = a.wait_status("serving 2", lambda s: s["serving"]["state"] == "serving" and s["serving"]["version"] == "2"
                          and s["serving"]["pid"] not in seen)
        seen.add(s["serving"]["pid"])
        os.kill(s["serving"]["pid"], signal.SIGKILL)
    u = world.wait_update(two, a.id, "rolled_back")
    assert "went back to perception-net 1" in u["reason"] and "signal 9" in u["reason"], u
    a.wait_serving("1")
    assert a.serves(1)
    a.kill()
    a.start()
    a.wait_serving("1")
    _, three = world.ship(2)
    world.wait_update(three, a.id, "running")
    assert a.serves(2)


def test_package_whose_golden_outputs_differ(world):
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    files = world.files(2)
    files["golden/case0.logits.npy"] = world.files(1)["golden/case0.logits.npy"]
    _, two = world.ship(2, files=files)
    u = world.wait_update(two, a.id, "failed")
    assert u["code"] == "STATE" and "golden" in u["reason"], u
    assert a.serves(1)
    assert a.status()["update"]["reason"] == u["reason"]


def test_package_that_is_no_model(world):
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    _, two = world.ship(2, files={"model.onnx": b"\x08\x07 this is no model"})
    u = world.wait_update(two, a.id, "failed")
    assert u["reason"]
    assert a.serves(1)


def test_cancelled_while_it_downloads(proxied):
    world, proxy, a = proxied
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    h, two = world.ship(2, files=big(world))
    proxy.cut_after = 100_000  # check-ins pass, the download crawls
    part = a.state / "packages" / f"{h}.part"
    tg.wait_for("a download", part.exists)
    world.api.delete(f"/api/v1/deployments/{two}", expect=200)
    a.wait_status("idle", lambda s: s["update"]["step"] in ("withdrawn", "running") and s["update"]["state"] == "idle",
                  deadline=60)
    proxy.cut_after = None
    tg.wait_for("the part's removal", lambda: not part.exists())
    assert a.serves(1)


def test_cancelled_and_deployed_again(proxied):
    """The same package again, after its half-done download was thrown away: it is fetched once more, in one go."""
    world, proxy, a = proxied
    h, one = world.ship(1, files=big(world))
    proxy.cut_after = 100_000
    a.start()
    part = a.state / "packages" / f"{h}.part"
    tg.wait_for("a download", part.exists)
    world.api.delete(f"/api/v1/deployments/{one}", expect=200)
    tg.wait_for("the part's removal", lambda: a.poke() or not part.exists(), deadline=60, every=0.5)
    proxy.cut_after, before = None, proxy.bytes
    two = world.deploy(h)
    world.wait_update(two, a.id, "running", deadline=60)
    assert proxy.bytes - before < 6_000_000 * 1.3, "it was fetched twice"


def test_newer_deployment_overtakes(proxied):
    world, proxy, a = proxied
    h, one = world.ship(1, files=big(world))
    proxy.cut_after = 100_000
    a.start()
    part = a.state / "packages" / f"{h}.part"
    tg.wait_for("a download", part.exists)
    _, two = world.ship(2)
    proxy.cut_after = None
    world.wait_update(two, a.id, "running")
    assert world.update(one, a.id)["state"] in ("superseded", "running")
    assert a.serves(2)


def test_damaged_cache_is_refused_with_its_reason(world):
    a = world.agent().enrol()
    h1, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    h2, two = world.ship(2)
    world.wait_update(two, a.id, "running")
    a.kill()
    path = a.state / "packages" / f"{h2}.tgsp"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    a.start()
    a.wait_serving("1")  # the last good one
    u = world.wait_update(two, a.id, "rolled_back")
    assert u["code"] == "AUTH", u
    assert a.serves(1)
