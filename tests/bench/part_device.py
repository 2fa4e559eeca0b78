"""A device with the demo's model: from start to ready, what it takes when idle, and what the protection costs per inference."""
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import time

import marks
import measure as m
import programs
import tg
import tg_agent

STARTS = 5
STREAM_PAIRS = 3
LINK_BYTES = 50 * 10**6  # a second
TAILS = 3
INFER = programs.BUILD / "tests" / "bench" / "bench_infer"
PLAIN = programs.BUILD / "tests" / "bench" / "bench_heap_plain"


def start_to_ready(agent, starts):
    """Seconds from exec to the first good answer of the prediction socket."""
    times = []
    for _ in range(starts):
        begin = time.monotonic()
        agent.start()
        while True:
            try:
                agent.infer()
                break
            except (OSError, AssertionError):
                if time.monotonic() - begin > 60:
                    raise
                time.sleep(0.002)
        times.append(time.monotonic() - begin)
        agent.wait_serving()
        agent.stop()
    return statistics.median(times)


def logged(agent, *events):
    """Seconds since the epoch of the last of these events in the agent's log, each waited for."""
    def there():
        found = []
        for event in events:
            lines = [line for line in agent.log_text().splitlines() if event in line]
            if not lines:
                return None
            found.append(datetime.datetime.fromisoformat(lines[-1].split()[0].replace("Z", "+00:00")).timestamp())
        return max(found)
    return tg.wait_for(" and ".join(events), there, deadline=300)


def publish(world, mib):
    """The demo's model with so much beside it; its H."""
    return world.publish(world.build(files={**world.files(1), "data.bin": os.urandom(mib << 20)}))


def fetch(world, h, name, worker=None, server=None):
    """A new agent that is offered this package, and runs."""
    agent = world.agent(name)
    agent.server = server or agent.server
    agent.worker = worker or agent.worker
    agent.enrol()
    world.deploy(h, agent.id)
    return agent.start()


def streamed(results, d, mib, pairs):
    """A large package over TLS: until its worker is healthy, beside the download with a worker that only sleeps. One world,
    one package, one agent after the other. As fast as loopback goes, where platform, agent and worker share the processors; and
    through a link as fast as a good mobile one."""
    (d / "stream").mkdir()
    world = tg_agent.World(d / "stream", tg.make_author(d / "stream-author"), poll=60)
    try:
        idle = d / "idle-worker"
        idle.write_text(f'#!/bin/sh\n[ "$1" = worker ] && exec sleep 600\nexec {programs.path("tensorguard-moai")} "$@"\n')
        idle.chmod(0o755)
        h = publish(world, mib)
        link = tg_agent.Proxy(world.platform.device_url)
        link.rate = LINK_BYTES
        for way, server in (("loopback TLS", None), (f"TLS through at most {LINK_BYTES * 8 // 10**6} Mbit/s", link.url)):
            took = {"alone": [], "streamed": []}
            for i in range(2 * pairs):
                name, worker, events = (("alone", idle, ["early=complete"]),
                                        ("streamed", None, ["early=complete", "agent.healthy"]))[i % 2]
                agent = fetch(world, h, f"{name}{i}{'-link' if server else ''}", worker, server)
                took[name].append(logged(agent, *events) - logged(agent, "accepted=true"))
                agent.kill()
            alone, ours = (statistics.median(took[k]) for k in ("alone", "streamed"))
            results.add(f"streamed load, {mib} MiB over {way}: offer to healthy", ours, "s", alone, "the download alone")
        link.close()
    finally:
        world.stop()


def demo_model():
    return next((tg_agent.EXAMPLE / "model_v1").rglob("*.onnx"))


def bare_open():
    """Seconds in which a process without ours starts, opens the demo's plain model and has its first answers."""
    return m.run(PLAIN, demo_model(), marks.CORES, 1, "input", "logits", "1", *map(str, tg_agent.IMAGES.shape[1:])).wall


def tails(results, d, sizes, times_each):
    """From the last byte of a download to a worker that is healthy, by the size of the package; the model is the same. The
    smallest beside a bare process, the others beside the smallest: the tail must not grow."""
    (d / "tails").mkdir()
    world = tg_agent.World(d / "tails", tg.make_author(d / "tails-author"), poll=60)
    try:
        first = None
        for mib in sizes:
            h = publish(world, mib)
            times, bare = [], []
            for i in range(times_each):
                bare.append(bare_open())
                agent = fetch(world, h, f"tail{mib}-{i}")
                times.append(logged(agent, "agent.healthy") - logged(agent, "early=complete"))
                agent.kill()
            tail = statistics.median(times) * 1e3
            results.add(f"streamed load, {mib} MiB: last byte to healthy", tail, "ms", first or statistics.median(bare) * 1e3,
                        f"ours of {sizes[0]} MiB" if first else "a bare process opens the plain model with ONNX Runtime, and answers")
            first = first or tail
    finally:
        world.stop()


@contextlib.contextmanager
def bare_tls(world, d):
    """The pid of a process that does nothing but hold one idle connection to the same platform, with a device's certificate:
    the openssl command, on the TLS libraries that the agent uses."""
    device = tg.Device(d / "bare", world.platform, "robots", "bare").enrol()
    words = d / "bare.log"
    with open(words, "w") as out, subprocess.Popen(
            [programs.openssl(), "s_client", "-connect", world.platform.device_url.rsplit("/", 1)[1], "-tls1_3",
             "-CAfile", str(world.platform.ca), "-cert", str(device.cert), "-key", str(device.key)],
            stdin=subprocess.PIPE, stdout=out, stderr=out) as child:
        try:
            tg.wait_for("openssl s_client", lambda: "Verify return code: 0" in words.read_text())
            yield child.pid
            if child.poll() is not None:
                raise RuntimeError("openssl s_client lost its connection: " + words.read_text()[-500:])
        finally:
            child.kill()


def measure(results, d, args):
    tails(results, d, marks.tail_mib(args), min(TAILS, args.rounds))
    streamed(results, d, marks.stream_mib(args), min(STREAM_PAIRS, args.rounds))
    world = tg_agent.World(d, tg.make_author(d / "author"), poll=60)
    try:
        agent = world.agent().enrol()
        agent.start()
        world.ship(1)
        agent.poke()
        agent.wait_serving()
        agent.stop()
        ready = start_to_ready(agent, 1 if args.quick else STARTS)
        agent.start()
        agent.wait_serving()
        count = str(int(400 * args.seconds))
        got = json.loads(m.run(INFER, demo_model(), agent.socket, "perception-net", "input", "logits", count,
                               "1", *map(str, tg_agent.IMAGES.shape[1:])).out)
        time.sleep(3)
        worker = tg_agent.worker_pids(agent.process.pid)[0]
        results.add("agent: start to ready, model cached", ready, "s", got["ort_open_ms"] / 1e3, "ONNX Runtime opens the plain file")
        with bare_tls(world, d) as bare:
            time.sleep(0.2)
            agent_pss, worker_pss, tls_pss = m.pss(agent.process.pid), m.pss(worker), m.pss(bare)
        ort_pss = got["ort_pss_kb"] * 1024
        results.add("agent: idle PSS", agent_pss / 1e6, "MB", tls_pss / 1e6, "openssl s_client with one idle connection to the platform")
        results.add("worker: idle PSS", worker_pss / 1e6, "MB", ort_pss / 1e6, "a bare process with ONNX Runtime and the model")
        results.add("agent + worker: idle PSS", (agent_pss + worker_pss) / 1e6, "MB", (tls_pss + ort_pss) / 1e6, "those two")
        results.add("inference p50", got["socket_p50_ms"], "ms", got["ort_p50_ms"], "plain ONNX Runtime call, 1 thread")
        results.add("inference p99", got["socket_p99_ms"], "ms", got["ort_p99_ms"], "plain ONNX Runtime call, 1 thread")
    finally:
        world.stop()
