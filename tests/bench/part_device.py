"""A device with the demo's model: from start to ready, what it takes when idle, and what the protection costs per inference."""
import json
import statistics
import time

import measure as m
import programs
import tg
import tg_agent

STARTS = 5
INFER = programs.BUILD / "tests" / "bench" / "bench_infer"


def start_to_ready(agent):
    """Seconds from exec to the first good answer of the prediction socket."""
    times = []
    for _ in range(STARTS):
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


def measure(results, d, args):
    world = tg_agent.World(d, tg.make_author(d / "author"), poll=60)
    try:
        agent = world.agent().enrol()
        agent.start()
        world.ship(1)
        agent.poke()
        agent.wait_serving()
        agent.stop()
        ready = start_to_ready(agent)
        agent.start()
        agent.wait_serving()
        model = next((tg_agent.EXAMPLE / "model_v1").rglob("*.onnx"))
        count = str(int(400 * args.seconds))
        got = json.loads(m.run(INFER, model, agent.socket, "perception-net", "input", "logits", count,
                               "1", *map(str, tg_agent.IMAGES.shape[1:])).out)
        time.sleep(3)
        worker = tg_agent.worker_pids(agent.process.pid)[0]
        results.add("agent: start to ready, model cached", ready, "s", got["ort_open_ms"] / 1e3, "ONNX Runtime opens the plain file")
        agent_pss, worker_pss = m.pss(agent.process.pid), m.pss(worker)
        results.add("agent: idle PSS", agent_pss / 1e6, "MB", mark=("ours", "<=", 12))
        results.add("worker: idle PSS", worker_pss / 1e6, "MB", got["ort_pss_kb"] * 1024 / 1e6,
                    "a bare process with ONNX Runtime and the model")
        results.add("agent + worker: idle PSS", (agent_pss + worker_pss) / 1e6, "MB")
        results.add("inference p50", got["socket_p50_ms"], "ms", got["ort_p50_ms"], "plain ONNX Runtime call, 1 thread")
        results.add("inference p99", got["socket_p99_ms"], "ms", got["ort_p99_ms"], "plain ONNX Runtime call, 1 thread")
    finally:
        world.stop()
