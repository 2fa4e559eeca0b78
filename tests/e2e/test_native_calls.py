"""The fast path makes no system call where both sides spin: counted by strace, in client and worker, over many turns."""
import collections
import os
import re
import shutil
import subprocess
import sys

import pytest

import programs
from moai_launcher import EXAMPLE, MODEL, Native, Worker, kit
from tg import wait_for

TURNS = 500
pytestmark = [pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here"),
              pytest.mark.skipif(programs.sanitized(), reason="a sanitizer makes system calls of its own")]

# One thread, everything made before the first marker (getppid), nothing between the two but the library's four functions
# and, where it is asked for, a pause of the loop's own.
CLIENT = """
import ctypes as c, gc, os, sys, time
sys.path[:0] = {path!r}
import libtensorguard as tg
m = tg.Model({socket!r}, spin_ns={spin_ns}, open_bytes=4096)
call, e, dims, pause = c.c_void_p(), tg.Error(), (c.c_int64 * 4)(1, 1, 8, 8), {pause}
def turn(begin=tg.LIB.tg_call_begin, shape=tg.LIB.tg_call_shape, run=tg.LIB.tg_call_run, end=tg.LIB.tg_call_end, p=m.p,
         c_call=c.byref(call), c_e=c.byref(e), four=c.c_size_t(4), first=c.c_size_t(0), limit=c.c_uint64(30 * tg.SECOND)):
    return begin(p, c_call, c_e) or shape(call, first, dims, four, c_e) or run(call, limit, c_e) or end(call) and 0
for _ in range(100):  # whatever is made once is made now
    assert not turn(), e.text
gc.disable()
os.getppid()
for _ in range({turns}):
    if pause: time.sleep(pause)
    if turn(): break
os.getppid()
m.close()
sys.exit(e.text.decode() if e.status else 0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("native-calls")
    kit("keys", "--dir", d)
    kit("rollback", "--out", d / "empty.rollback")
    kit("package", "--dir", d, "--input", EXAMPLE / "model_v1", "--out", d / "net.tgsp", "--model", MODEL)
    return d


def strace(trace):
    """Every thread's calls, each with the time at which it began."""
    return ["strace", "-f", "-qq", "-ttt", "-o", str(trace)]


def calls(trace):
    """[(thread, time, name)]; of futex with what it does. What another thread cut in two counts once, where it began."""
    rows = re.findall(r"^(\d+) +(\d+\.\d+) (\w+)\((?:0x\w+, (FUTEX_[A-Z]+))?", trace.read_text(), re.M)
    return [(int(thread), float(at), what or name) for thread, at, name, what in rows]


def count(folder, tmp_path, spin_us, pause=0):
    """What the calling thread of a client and the serving threads of a worker call between the markers: a Counter each."""
    native, ours, theirs = Native(tmp_path), tmp_path / "client.trace", tmp_path / "worker.trace"
    w = Worker(folder, folder / "net.tgsp", native=native, native_spin_us=spin_us, threads=1, before=strace(theirs)).serve().settled()
    script = CLIENT.format(path=[str(programs.ROOT / "tests" / "e2e"), str(programs.ROOT / "tests")], socket=native.path,
                           spin_ns=spin_us * 1000, turns=TURNS, pause=pause)
    done = subprocess.run([*strace(ours), sys.executable, "-c", script], capture_output=True, text=True, timeout=300,
                          env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"))
    assert done.returncode == 0, done.stderr
    client = calls(ours)
    start, end = [i for i, row in enumerate(client) if row[2] == "getppid"]
    (caller, begin, _), finish = client[start], client[end][1]

    def told():
        """Whoever served tells the loop so at the end (an eventfd), and is known by that though it called nothing before."""
        writes = re.findall(r"^(\d+) +(\d+\.\d+) write\(\d+, .*, 8\b", theirs.read_text(), re.M)
        return {int(thread) for thread, at in writes if float(at) > finish}

    servers = wait_for("the ring to be given back", told)
    w.stop()
    native.close()
    worker = calls(theirs)
    loops = {thread for thread, _, name in worker if name.startswith("epoll_")}
    assert len(servers) == 1 and not servers & loops
    return (collections.Counter(name for thread, _, name in client[start + 1:end] if thread == caller),
            collections.Counter(name for thread, at, name in worker if begin < at < finish and thread not in loops))


def assert_no_calls(client, worker):
    assert not client and not worker, (client, worker)


def test_where_both_spin_no_turn_makes_a_system_call(folder, tmp_path):
    for attempt in range(3):  # once more where a busy machine kept one of the two off for the second that the other one spins
        (tmp_path / str(attempt)).mkdir()
        client, worker = count(folder, tmp_path / str(attempt), spin_us=1_000_000)
        if not 0 < sum((client + worker).values()) < TURNS // 10:
            break
    assert_no_calls(client, worker)


def test_where_both_sleep_each_wakes_the_other_and_the_counter_sees_it(folder, tmp_path):
    """The control as well: were there one futex in each call, the test above would fail."""
    client, worker = count(folder, tmp_path, spin_us=0, pause=0.005)
    with pytest.raises(AssertionError):
        assert_no_calls(client, worker)
    assert client.pop("clock_nanosleep") == TURNS  # the loop's own
    # One each way and turn. Whoever has not fallen asleep yet is not woken; who sleeps long looks again every 10 ms.
    for name, counts in (("FUTEX_WAKE", client), ("FUTEX_WAIT", worker), ("FUTEX_WAIT", client), ("FUTEX_WAKE", worker)):
        assert TURNS // 2 < counts[name], (client, worker)
    assert client["FUTEX_WAKE"] <= TURNS and worker["FUTEX_WAKE"] <= TURNS, (client, worker)
    assert set(client) <= {"FUTEX_WAKE", "FUTEX_WAIT", "poll"} and set(worker) == {"FUTEX_WAKE", "FUTEX_WAIT"}, (client, worker)
