"""A worker that its attacker owns: in the real worker, inside its real sandbox, beside a real agent (tests/fault/hostile.c).
It reaches no file, no socket, no process, and of the agent nothing beyond its small channel; the model before goes on serving."""
import os

import pytest

import programs
import tg
import tg_agent

SHIM = programs.BUILD / "tests" / "fault" / "libtghostile.so"
pytestmark = pytest.mark.skipif(programs.sanitized(), reason="a sanitizer's worker has no sandbox")

WORKER = """
import os, pathlib, sys
plan = pathlib.Path({plan}).read_text()
if sys.argv[1] == "worker" and plan:
    os.environ.update(LD_PRELOAD={shim}, TG_HOSTILE=plan, TG_HOSTILE_FILE={file})
os.execv({real}, [{real}, *sys.argv[1:]])
"""

KILLED = "signal 31 (Bad system call)"
# what it does, and what the operator is told
ENDED = {
    "open-file": KILLED, "list-folder": KILLED, "unix-socket": KILLED, "inet-socket": KILLED, "reconnect": KILLED,
    "kill-agent": KILLED, "trace-agent": KILLED, "read-agent": KILLED, "open-agent": KILLED, "execute": KILLED, "fork": KILLED,
    "be-root": KILLED, "be-dumpable": KILLED, "new-namespace": KILLED, "new-code": KILLED, "io-uring": KILLED,
    "shut-listeners": KILLED, "flood": "it sends too many messages", "babble": "worker's message",
    "claim-health": "healthy, but with another package", "large-message": "worker's message",
}
# Of the calls the unit tests of the sandbox try each; the rest of the list here with TG_FULL=1 (make check).
LATER = ("list-folder", "inet-socket", "reconnect", "trace-agent", "open-agent", "be-root", "new-namespace", "new-code", "io-uring")
FULL = bool(os.environ.get("TG_FULL"))
PHASES = {"verifying": ["open-file"],  # before the first byte of the package
          "loading": [what for what in ENDED if FULL or what not in LATER],
          "healthy": [what for what in ENDED if ENDED[what] == KILLED] if FULL else ["open-file", "kill-agent", "execute", "shut-listeners"]}


class Owned:
    """An agent that serves version 1, and whose next workers do as planned."""

    def __init__(self, world, folder):
        self.world, self.plan = world, folder / "plan"
        self.plan.write_text("")
        file = folder / "secret"
        file.write_text("of someone else")
        file.chmod(0o644)
        self.a = world.agent().stand_in(WORKER, plan=self.plan, shim=SHIM, file=file).run_first()

    def ship(self, plan, *states):
        """Version 2 with a worker that does this, and back to honest ones; the update, and what was logged meanwhile."""
        before = len(self.a.log_text())
        self.plan.write_text(plan)
        _, two = self.world.ship(2)
        u = self.world.wait_update(two, self.a.id, *states)
        self.plan.write_text("")
        return u, self.a.log_text()[before:]


@pytest.fixture(scope="module")
def owned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("owned")
    world = tg_agent.World(folder, tg.make_author(folder / "author"))
    yield Owned(world, folder)
    world.stop()


@pytest.mark.parametrize("when,what", [(when, what) for when, acts in PHASES.items() for what in acts])
def test_an_owned_worker_is_ended_and_harms_nobody(owned, when, what):
    a = owned.a
    pid = a.status()["serving"]["pid"]
    u, log = owned.ship(f"{when}:{what}", "failed")
    assert ENDED[what] in u["reason"], u
    assert "hostile: reached" not in log or what in ("flood", "babble", "claim-health", "large-message"), log[-3000:]
    assert a.process.poll() is None and a.status()["serving"]["pid"] == pid
    assert a.serves(1)
    assert tg_agent.worker_pids(a.process.pid) == [pid]


def test_what_does_not_end_it_gets_it_nothing(owned):
    """Opening as a bake does is refused and not fatal; descriptors that are pushed at the agent are not kept."""
    a = owned.a
    _, log = owned.ship("loading:make-file", "running")
    assert "hostile: denied make-file" in log and not os.path.exists("/tmp/hostile")
    tg.wait_for("the worker before to be gone", lambda: len(tg_agent.worker_pids(a.process.pid)) == 1)
    for when in ("loading", "healthy"):
        _, log = owned.ship(f"{when}:look-up", "running")
        assert "hostile: denied look-up" in log, log[-3000:]
        tg.wait_for("the worker before to be gone", lambda: len(tg_agent.worker_pids(a.process.pid)) == 1)
    before = len(os.listdir(f"/proc/{a.process.pid}/fd"))
    _, log = owned.ship("loading:push-descriptors", "running")
    assert "hostile: reached push-descriptors" in log
    tg.wait_for("the worker before to be gone", lambda: len(tg_agent.worker_pids(a.process.pid)) == 1)
    assert len(os.listdir(f"/proc/{a.process.pid}/fd")) <= before + 1
    assert a.serves(2)
