"""A worker that follows the download: it starts when signatures, policy and grant are checked, decrypts what comes,
and is healthy a moment after the last byte. Real platform, agent and worker; a proxy makes the network slow."""
import os
import re
import signal
import time

import pytest

import tg
import tg_agent
from test_moai_memory import is_region, searched
from test_moai_protect import PLAIN_BUILD, ROOT_ONLY

SIZE = 12 << 20
SLOW = 3 << 20  # bytes a second: some seconds for a package


def large(world, size=SIZE, **options):
    """A package of the demo's model and a file that only takes room."""
    return world.publish(world.build(files={**world.files(1), "data.bin": os.urandom(size)}, **options))


def early(a):
    """The pids of the workers that were started before their package was complete, in order."""
    return [int(m) for m in re.findall(r"pid=(\d+) started=early", a.log_text())]


def starts(a):
    return re.findall(r"started=(\w+)", a.log_text())


def wait_decrypting(a, n=1):
    """The worker has verified signatures, header, manifest and recipients, and unwrapped the key."""
    tg.wait_for("a worker that decrypts", lambda: a.log_text().count("state=decrypting") >= n)


def part(a, h):
    return a.state / "packages" / f"{h}.part"


def test_verified_before_the_payload_is_there(proxied):
    world, proxy, a = proxied
    h = large(world)
    proxy.rate = SLOW
    a.start()
    moved = proxy.bytes
    d = world.deploy(h)
    wait_decrypting(a)
    assert proxy.bytes - moved < SIZE, "it was started when all was there"
    assert part(a, h).exists() and a.journal()["step"] == "accepted"
    world.wait_update(d, a.id, "running")
    assert a.serves(1)
    assert starts(a) == ["early"], "the worker that followed is the one that serves"
    assert proxy.bytes - moved < SIZE * 1.2
    log = a.log_text()
    assert log.index("state=decrypting") < log.index("early=complete")
    assert not list((a.state / "packages").glob("*.part*"))


@pytest.mark.parametrize("proxied", [["--load-timeout", "3"]], indirect=True)
def test_slow_downloads_are_not_slow_loads(proxied):
    world, proxy, a = proxied
    h = large(world)
    proxy.rate = SLOW / 2
    a.start()
    d = world.deploy(h)
    wait_decrypting(a)
    began = time.monotonic()
    world.wait_update(d, a.id, "running")
    assert time.monotonic() - began > 3, "it was not slow enough to say anything"
    assert starts(a) == ["early"] and "hung" not in a.log_text()


@ROOT_ONLY
@PLAIN_BUILD
def test_root_finds_a_loading_model_in_the_region_only(proxied):
    """While chunks are decrypted and the rest is waited for; the agent, which brings them, holds none of it."""
    world, proxy, a = proxied
    data = os.urandom(SIZE)
    h = world.publish(world.build(files={**world.files(1), "data.bin": data}))
    proxy.rate = SLOW / 3
    a.start()
    d = world.deploy(h)
    wait_decrypting(a)
    pid = early(a)[-1]
    tg.wait_for("some of the payload", lambda: tg_agent.fetched(part(a, h)) > SIZE / 3)
    pieces = [data[at:at + 24] for at in range(1 << 12, SIZE // 6, 1 << 16)]
    found, size = searched(pid, pieces)
    assert "healthy" not in a.log_text(), "the search came too late to say anything"
    assert size > 20 << 20 and not [(m.path, n) for m, n in found if not is_region(m)]
    assert found, "at level locked root finds what is decrypted already"
    assert searched(a.process.pid, pieces)[0] == []
    proxy.rate = None
    world.wait_update(d, a.id, "running")


def test_broken_connection_in_the_middle(proxied):
    """The same worker waits it out, and nothing is fetched twice."""
    world, proxy, a = proxied
    h = large(world)
    proxy.rate, proxy.cut_after = SLOW, 5_000_000
    a.start()
    moved = proxy.bytes
    d = world.deploy(h)
    world.wait_update(d, a.id, "running")
    assert a.serves(1)
    assert proxy.cuts >= 2
    assert proxy.bytes - moved < SIZE * 1.2
    assert starts(a) == ["early"]


def test_network_that_stays_away_ends_the_worker(proxied):
    """It does not sit on locked memory for nobody knows how long; when the network is back another follows."""
    world, proxy, a = proxied
    h = large(world)
    proxy.rate = SLOW
    a.start()
    d = world.deploy(h)
    wait_decrypting(a)
    proxy.drop()
    tg.wait_for("the worker's end", lambda: not tg_agent.worker_pids(a.process.pid))
    assert "early=ended" in a.log_text()
    proxy.down, proxy.rate = False, None
    world.wait_update(d, a.id, "running")
    assert a.serves(1)


def test_agent_killed_in_the_middle(proxied):
    world, proxy, a = proxied
    h = large(world)
    proxy.rate = SLOW
    a.start()
    moved = proxy.bytes
    d = world.deploy(h)
    wait_decrypting(a)
    tg.wait_for("some of the payload, on record", lambda: tg_agent.fetched(part(a, h)) > SIZE / 4)
    pid = early(a)[-1]
    a.kill()
    tg.wait_for("the worker's end with its agent", lambda: not os.path.exists(f"/proc/{pid}"))
    kept = tg_agent.fetched(part(a, h))
    a.start()
    wait_decrypting(a, 2)
    world.wait_update(d, a.id, "running")
    assert a.serves(1)
    assert starts(a) == ["early", "early"]
    # at most what came in the second before the kill, and was on no record, comes again
    assert proxy.bytes - moved < SIZE * 1.2 + 2 * SLOW, f"{kept} bytes were kept"


def test_worker_killed_in_the_middle(proxied):
    """The download goes on without one; another is tried on the complete file."""
    world, proxy, a = proxied
    h = large(world)
    proxy.rate = SLOW
    a.start()
    moved = proxy.bytes
    d = world.deploy(h)
    wait_decrypting(a)
    os.kill(early(a)[0], signal.SIGKILL)
    world.wait_update(d, a.id, "running")
    assert a.serves(1)
    assert starts(a) == ["early", "trial"], a.log_text()
    assert proxy.bytes - moved < SIZE * 1.2


def damage(path, offset):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 1]))


def damage_ahead(a, h, beyond):
    """Of a place that comes while the worker stands still, and is wrong when it goes on; the download is so far beyond it.
    Returns who stands still."""
    wait_decrypting(a)
    pid = early(a)[0]
    os.kill(pid, signal.SIGSTOP)
    at = tg_agent.fetched(part(a, h)) + SIZE // 4
    tg.wait_for("that place", lambda: tg_agent.fetched(part(a, h)) > at + beyond)
    damage(part(a, h), at)
    return pid


def test_damaged_chunk_is_fetched_again(proxied):
    world, proxy, a = proxied
    h = large(world)
    proxy.rate = SLOW
    a.start()
    moved = proxy.bytes
    d = world.deploy(h)
    pid = damage_ahead(a, h, SIZE // 4)
    os.kill(pid, signal.SIGCONT)
    world.wait_update(d, a.id, "running")
    assert a.serves(1)
    assert starts(a) == ["early"], "one chunk was fetched again, not all of it"
    assert a.log_text().count("moai.again") == 1
    assert proxy.bytes - moved < SIZE * 1.2 + (2 << 20)


def test_chunk_that_is_always_wrong_is_given_up(proxied):
    """The platform's own file is damaged: the same wrong chunk comes twice."""
    world, proxy, a = proxied
    path = world.build(files={**world.files(1), "data.bin": os.urandom(SIZE)})
    h = world.publish(path)
    data = path.read_bytes()
    stored = [p for p in world.platform.dir.rglob("*") if p.is_file() and p.stat().st_size == len(data)]
    assert len(stored) == 1
    damage(stored[0], len(data) // 2)
    proxy.rate = SLOW
    a.start()
    d = world.deploy(h)
    u = world.wait_update(d, a.id, "failed")
    assert u["code"] == "AUTH" and "digest is not the one in the manifest" in u["reason"]
    assert a.log_text().count("moai.again") == 1
    assert starts(a) == ["early"]
    tg.wait_for("the worker's end", lambda: not tg_agent.worker_pids(a.process.pid))
    assert "state=loading" not in a.log_text(), "a package went to ONNX Runtime that was not verified"


def test_refused_before_its_payload(proxied):
    """What the author says against this device is known from the front: the rest is not downloaded."""
    world, proxy, a = proxied
    end = time.time() + 6
    h = large(world, not_after=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end)))
    d = world.deploy(h)
    tg.wait_for("its end", lambda: time.time() > end + 1)
    moved = proxy.bytes
    a.start()
    u = world.wait_update(d, a.id, "failed")
    assert u["code"] == "EXPIRED"
    assert proxy.bytes - moved < SIZE / 4
    assert starts(a) == []
    told = [e["action"] for e in world.api.get(f"/api/v1/audit?package={h}").json["items"]]
    assert "deployment.offer" in told and "package.fetch" not in told, "what was not fetched is not told as fetched"


def test_cancelled_in_the_middle(proxied):
    world, proxy, a = proxied
    h = large(world)
    proxy.rate = SLOW
    a.start()
    d = world.deploy(h)
    wait_decrypting(a)
    world.api.delete(f"/api/v1/deployments/{d}", expect=200)
    tg.wait_for("the end of worker and part", lambda: a.poke() or (not tg_agent.worker_pids(a.process.pid) and
                                                                  not part(a, h).exists()), every=0.5)


def test_a_link_that_becomes_slow_does_not_keep_the_agent_from_the_platform(proxied):
    """Much was asked for while it was fast; at the new speed that would take five minutes."""
    world, proxy, a = proxied
    h = large(world, 48 << 20)
    proxy.rate = 16 << 20
    a.start()
    before = proxy.bytes
    d = world.deploy(h)
    tg.wait_for("half of it", lambda: proxy.bytes - before > 24 << 20)
    proxy.rate = 100_000
    world.api.delete(f"/api/v1/deployments/{d}", expect=200)
    tg.wait_for("the end of the part", lambda: a.poke() or not part(a, h).exists(), deadline=60, every=0.5)
    assert proxy.bytes - before < 36 << 20


def breaks(a):
    """How often the download broke."""
    return len(re.findall(r"agent\.update.* waiting_ms=", a.log_text()))


def asks_again(world, proxy, a):
    """A chunk that is wrong, which the worker finds while each answer of the platform's breaks."""
    h = large(world)
    proxy.rate = SLOW
    a.start()
    d = world.deploy(h)
    pid = damage_ahead(a, h, SIZE // 8)
    assert breaks(a) == 0
    proxy.cut_after = 0
    tg.wait_for("the download's break", lambda: breaks(a), every=0.01)
    os.kill(pid, signal.SIGCONT)
    tg.wait_for("the request for the chunk", lambda: "agent.fetch again=" in a.log_text(), every=0.01)
    return d, h


def test_damaged_chunk_whose_request_breaks_is_asked_for_again(proxied):
    world, proxy, a = proxied
    d, h = asks_again(world, proxy, a)
    before = breaks(a)
    tg.wait_for("its break", lambda: breaks(a) > before, every=0.01)
    proxy.cut_after = None
    moved, had = proxy.bytes, tg_agent.fetched(part(a, h))
    world.wait_update(d, a.id, "running")
    assert a.serves(1)
    assert starts(a) == ["early"] and a.log_text().count("moai.again") == 1, a.log_text()
    assert proxy.bytes - moved < (SIZE - had) * 1.2 + (2 << 20), "one chunk was fetched again, not all of it"


def test_damaged_chunk_whose_request_always_breaks_ends_the_worker(proxied):
    """It is not waited for without end; when the network is back the download goes on, and starts over by its digest."""
    world, proxy, a = proxied
    d, _ = asks_again(world, proxy, a)
    tg.wait_for("the worker's end", lambda: "early=ended" in a.log_text())
    assert breaks(a) <= 4
    proxy.cut_after = proxy.rate = None
    world.wait_update(d, a.id, "running")
    assert a.serves(1)
