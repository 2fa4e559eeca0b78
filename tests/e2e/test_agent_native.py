"""The agent's native socket: calls through it, over a change of versions; hand-overs that reach the audit log."""
import os
import stat

import pytest

import libtensorguard as tg
import tg as platform_kit
import tg_agent


@pytest.fixture(scope="module")
def world(author, tmp_path_factory):
    w = tg_agent.World(tmp_path_factory.mktemp("native"), author)
    yield w
    w.stop()


def native_of(agent):
    return str(agent.socket) + ".native"


def predict(model):
    image = tg_agent.IMAGES[0]
    _, got = model.run([1, *image.shape], [float(v) for v in image.ravel()], 60 * tg.SECOND)
    return next((v for v in (1, 2) if all(abs(a - b) < 1e-4 for a, b in zip(got, tg_agent.LOGITS[v][0]))), None)


def test_calls_over_an_update_and_a_restart(world):
    agent = world.agent("caller").enrol("--native-spin", "50").start()
    world.ship(1, agent.id)
    agent.wait_serving("1")
    mode = os.stat(native_of(agent)).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
    m = tg.Model(native_of(agent), reconnect_ns=60 * tg.SECOND)
    assert predict(m) == 1 and m.info.can_take == 0
    h, deployment = world.ship(2, agent.id)
    seen = {predict(m)}
    while agent.status()["serving"].get("version") != "2":
        seen.add(predict(m))
    platform_kit.wait_for("the new version's answers", lambda: predict(m) == 2)
    assert seen <= {1, 2} and m.version == "2"
    for pid in tg_agent.worker_pids(agent.process.pid):
        os.kill(pid, 9)
    assert predict(m) == 2  # the agent starts another, and the call waits for it
    m.close()
    assert agent.stop() == 0
    assert not os.path.exists(native_of(agent))


def test_a_hand_over_is_audited(world):
    agent = world.agent("taker").enrol("--handover-user", str(os.getuid())).start()
    h, _ = world.ship(1, agent.id)
    agent.wait_serving("1")
    m = tg.Model(native_of(agent))
    assert m.info.can_take == 1
    want = (tg_agent.EXAMPLE / "model_v1" / "model.onnx").read_bytes()
    for _ in range(2):
        fd = m.open_file("model.onnx")
        assert os.read(fd, 1 << 20) == want
        os.close(fd)
    rows = lambda: world.api.get(f"/api/v1/audit?package={h}&action=model.handover").json["items"]  # noqa: E731
    platform_kit.wait_for("two audit rows", lambda: len(rows()) == 2)
    for row in rows():
        assert row["detail"] == f"uid={os.getuid()} bytes={len(want)} file=model.onnx"
        assert row["actor"] == f"device:{agent.id}" or agent.id in row["actor"]
    assert world.api.get("/api/v1/audit/verify").json["ok"] is True
    m.close()
    assert agent.stop() == 0


def test_a_package_of_another_framework_is_delivered(world):
    agent = world.agent("tflite").enrol("--handover-user", str(os.getuid())).start()
    model = b"\x1c\x00\x00\x00TFL3" + os.urandom(5000)
    world.ship(files={"model.tflite": model}, device=agent.id)
    agent.wait_serving("1")
    m = tg.Model(native_of(agent))
    assert (m.info.can_run, m.info.can_take) == (0, 1)
    fd = m.open_file("model.tflite")
    with open(f"/proc/self/fd/{fd}", "rb") as f:
        assert f.read() == model
    os.close(fd)
    m.close()
    assert agent.stop() == 0


def test_off_and_elsewhere(world, tmp_path):
    agent = world.agent("quiet").enrol("--native-socket", "off").start()
    world.ship(1, agent.id)
    agent.wait_serving("1")
    assert not os.path.exists(native_of(agent))
    assert agent.stop() == 0
    refused = world.agent("wrong").enrol("--native-socket", "here", ok=False)
    assert refused.returncode == 2 and "absolute" in refused.stderr
    refused = world.agent("nobody").enrol("--handover-user", "no-such-user-here", ok=False)
    assert refused.returncode != 0 and "no such user" in refused.stderr
