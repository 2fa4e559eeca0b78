"""Hand-overs are made beside the loop: what is asked meanwhile is answered, and whatever ends in the middle ends cleanly."""
import os
import select
import shutil
import struct

import pytest

import libtensorguard as tg
import programs
from moai_launcher import EXAMPLE, MODEL, Listener, Native, Unix, Worker, binary_request, heldout, kit
from test_handover import CHUNK, chunks_of, damage_all_but
from pack import tgsp_reader
from tg import wait_for

ME = os.getuid()
BIG = 320 << 20
pytestmark = pytest.mark.skipif(programs.protection() == "any", reason="what is handed over must be locked, and this user may lock too little")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("beside")
    kit("keys", "--dir", d)
    kit("rollback", "--out", d / "empty.rollback")
    shutil.copytree(EXAMPLE / "model_v1", d / "model")
    with open(d / "model" / "big.bin", "wb") as f:
        for _ in range(BIG >> 20):
            f.write(os.urandom(1 << 20))
    for i in range(10):
        (d / "model" / f"small{i}.bin").write_bytes(b"%d" % i * 1000)
    kit("package", "--dir", d, "--input", d / "model", "--out", d / "big.tgsp", "--model", MODEL)
    yield d
    shutil.rmtree(d)


class Setting:
    """A worker with its sockets, and what it holds for hand-overs before anybody asks."""

    def __init__(self, folder, tmp_path, package=None):
        self.listener, self.native = Listener(tmp_path), Native(tmp_path)
        self.w = Worker(folder, package or folder / "big.tgsp", self.listener, native=self.native, takers=[ME]).serve().settled()
        self.idle = self.used()

    def used(self):
        return self.w.metrics()["tensorguard_memory_used_bytes"]

    def held(self):
        return self.w.metrics()["tensorguard_handover_held_bytes"]

    def asks(self, path, begun=True):
        """A connection that has asked for a file; begun: it is being made."""
        bare = tg.Bare(self.native.path)
        bare.send(tg.TAKE, path.encode().ljust(1032, b"\0") + b"\0" * 260)
        if begun:
            wait_for("it to be begun", lambda: self.held() > 0 or ready(bare))
            assert not ready(bare), "made before the test could look: make BIG larger"
        return bare

    def nothing_is_left(self):
        wait_for("what was being made to go", lambda: self.held() == 0)
        assert self.used() < self.idle + (4 << 20)

    def end(self, status=None):
        """status: of a worker that has ended by itself."""
        if status is None:
            assert self.w.process.poll() is None, self.w.log()
            self.w.stop()
        else:
            assert self.w.wait() == status, self.w.log()
        self.native.close()
        self.listener.close()


@pytest.fixture
def setting(folder, tmp_path):
    s = Setting(folder, tmp_path)
    yield s
    s.end()


def ready(bare):
    return bool(select.select([bare.socket], [], [], 0)[0])


def taken(bare):
    """What came: size, or the reason it was refused with."""
    kind, body, fds = bare.receive()
    for fd in fds:
        os.close(fd)
    return struct.unpack_from("<Q", body)[0] if kind == tg.TAKEN else body[4:].split(b"\0")[0].decode() if kind else None


def test_predictions_health_and_pings_are_answered_meanwhile(setting):
    """What was asked after the hand-over was, and answered before it: that many."""
    shape, images, logits = heldout()
    body, headers = binary_request(shape, images[:1])
    shared = tg.Model(setting.native.path)
    shared.run(shape and [1, *shape], images[0])
    http = Unix(setting.listener.path)
    bare, answered = setting.asks("big.bin"), {"infer": 0, "health": 0, "ping": 0, "call": 0, "list": 0}
    other = tg.Bare(setting.native.path)
    while not ready(bare):
        assert setting.w.infer(body, headers, connection=http)[0] == 200
        answered["infer"] += not ready(bare)
        assert setting.w.ask("GET", "/v2/health/ready", connection=http)[0] == 200
        answered["health"] += not ready(bare)
        setting.w.tell("ping")
        assert setting.w.receive()["event"] in ("pong", "handover")
        answered["ping"] += not ready(bare)
        shared.run([1, *shape], images[0])
        answered["call"] += not ready(bare)
        assert other.ask(tg.LIST, struct.pack("<II", 0, 0))[0] == tg.FILES
        answered["list"] += not ready(bare)
    assert taken(bare) == BIG
    assert all(n >= 2 for n in answered.values()), answered
    assert "handover" in [m["event"] for m in setting.w.messages] or setting.w.receive()["event"] == "handover"
    assert setting.held() == BIG
    for c in (bare, other, shared):
        c.close()


def test_it_is_told_before_it_arrives_and_not_before_it_is_whole(setting):
    bare = setting.asks("big.bin")
    assert not select.select([setting.w.control], [], [], 0)[0]
    assert taken(bare) == BIG
    assert select.select([setting.w.control], [], [], 0)[0]  # at once: it was told first
    assert setting.w.receive() == {"event": "handover", "file": "big.bin", "size": BIG, "uid": ME}
    bare.close()


def test_so_many_may_wait_and_each_gets_its_own(setting):
    first = setting.asks("big.bin")
    waiting = [setting.asks(f"small{i}.bin", begun=False) for i in range(6)] + [setting.asks("big.bin", begun=False)]
    refused = setting.asks("small9.bin", begun=False)
    text = taken(refused)
    assert "8 hand-overs are waited for" in text and "ask again" in text
    assert refused.ask(tg.LIST, struct.pack("<II", 0, 0))[0] == tg.FILES  # refused, not cut off
    assert not ready(waiting[0])
    assert [taken(b) for b in (first, *waiting)] == [BIG, *[1000] * 6, BIG]
    assert [setting.w.receive()["file"] for _ in range(8)] == ["big.bin", *(f"small{i}.bin" for i in range(6)), "big.bin"]
    assert setting.held() == BIG + 6000  # one copy of the large one
    for b in (first, refused, *waiting):
        b.close()


def test_a_client_that_goes_away_in_the_middle(setting):
    gone, waiting, alive = setting.asks("big.bin"), setting.asks("small1.bin", begun=False), setting.asks("small2.bin", begun=False)
    waiting.close()
    gone.close()
    assert taken(alive) == 1000  # without the large one being made to its end
    assert setting.w.receive()["file"] == "small2.bin"  # the first thing told: what nobody got was not
    wait_for("what was being made to go", lambda: setting.held() == 1000)
    assert setting.used() < setting.idle + (4 << 20)
    again = setting.asks("big.bin", begun=False)
    assert taken(again) == BIG
    for b in (alive, again):
        b.close()


def test_who_asks_again_before_the_answer_is_cut_off(setting):
    bare = setting.asks("big.bin")
    bare.send(tg.LIST, struct.pack("<II", 0, 0))
    assert bare.hung_up()
    setting.nothing_is_left()
    bare.close()


def test_an_error_in_the_middle(folder, tmp_path):
    package = tmp_path / "net.tgsp"
    shutil.copyfile(folder / "big.tgsp", package)
    s = Setting(folder, tmp_path, package)
    p = tgsp_reader.Package(package)
    chunks = range(-(-p.sections["payload"][1] // (CHUNK + 16)))
    damage_all_but(package, set(chunks) - {max(chunks_of(p, "big.bin", BIG - 2 * CHUNK, 1))})
    bare, other = s.asks("big.bin"), s.asks("small1.bin", begun=False)
    text = taken(bare)
    assert "chunk" in text and "state=unreadable" in s.w.log()
    assert taken(other) == 1000  # the next one is not harmed
    wait_for("what was being made to go", lambda: s.held() == 1000)
    assert s.used() < s.idle + (4 << 20)
    assert s.w.receive()["file"] == "small1.bin"
    for b in (bare, other):
        b.close()
    s.end()


def test_a_drain_in_the_middle_waits_for_it(folder, tmp_path):
    s = Setting(folder, tmp_path)
    bare, idle = s.asks("big.bin"), tg.Bare(s.native.path)
    s.w.tell("drain")
    assert idle.hung_up()
    assert taken(bare) == BIG
    assert bare.hung_up()
    assert [s.w.receive()["event"] for _ in range(2)] == ["handover", "drained"]
    for b in (bare, idle):
        b.close()
    s.end(status=0)


def test_the_end_in_the_middle(folder, tmp_path):
    """The agent is gone: it stops at once, whatever it was making."""
    s = Setting(folder, tmp_path)
    bare, waiting = s.asks("big.bin"), s.asks("small1.bin", begun=False)
    s.w.control.close()
    s.w.wait(20)
    assert taken(bare) is None and taken(waiting) is None
    assert "signal" not in s.w.log()
    for b in (bare, waiting):
        b.close()
    s.end(status=s.w.process.returncode)
    assert s.w.process.returncode >= 0
