"""The agent keeps a worker's sealed bake: made once, read at each start, gone with its package."""
import stat

import pytest

import programs
import tg

pytestmark = pytest.mark.skipif(programs.sanitized(), reason="without a sandbox")


def bakes(agent):
    return sorted(p.name for p in (agent.state / "bakes").iterdir())


def states(agent):
    return [w[6:] for line in agent.log_text().splitlines() if "moai.bake" in line
            for w in line.split() if w.startswith("state=")]


def again(agent):
    """Stop and start; what the new worker said about its bake."""
    agent.stop()
    before = len(states(agent))
    agent.start()
    agent.wait_serving()
    return states(agent)[before:]


def test_made_once_read_at_each_start_gone_with_its_package(world):
    a = world.agent().enrol()
    h1, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    if states(a) == ["none"]:
        pytest.skip("this kernel has no Landlock, so nothing is baked")
    assert states(a) == ["sealed"]
    assert bakes(a) == [f"{h1}.bake"]
    bake = a.state / "bakes" / f"{h1}.bake"
    assert stat.S_IMODE(bake.stat().st_mode) == 0o600
    first = bake.read_bytes()

    assert again(a) == ["opened"]
    assert a.serves(1) and bake.read_bytes() == first and bakes(a) == [f"{h1}.bake"]

    bake.write_bytes(first[:-1] + bytes([first[-1] ^ 1]))  # a stranger was at the disk
    assert again(a) == ["refused", "sealed"]
    assert a.serves(1) and bake.read_bytes() != first
    assert again(a) == ["opened"]

    h2, two = world.ship(2)
    world.wait_update(two, a.id, "running")
    assert a.serves(2)
    for model in (1, 2):  # the first package is two behind now
        _, d = world.ship(model, model_version=f"9.{model}")
        world.wait_update(d, a.id, "running")
    a.stop()
    assert f"{h1}.bake" not in bakes(a)
    kept = {p.name.split(".")[0] for p in (a.state / "packages").iterdir()}
    assert {b.split(".")[0] for b in bakes(a)} <= kept and not [b for b in bakes(a) if b.endswith(".tmp")]


def test_a_device_that_cannot_keep_bakes_still_runs_models(world):
    """The place of the bake is taken by a folder; the folder of an older agent is missing at first."""
    a = world.agent().enrol()
    (a.state / "bakes").rmdir()
    h = world.publish(world.build(1))
    a.start()
    tg.wait_for("the folder", lambda: (a.state / "bakes").is_dir())
    (a.state / "bakes" / f"{h}.bake").mkdir()
    one = world.deploy(h)
    world.wait_update(one, a.id, "running")
    assert a.serves(1)
    assert bakes(a) == [f"{h}.bake"]
