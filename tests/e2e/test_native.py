"""Calls through shared memory: libtensorguard (and clients that break its rules) against real workers."""
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest

import libtensorguard as tg
import programs
from moai_launcher import EXAMPLE, MODEL, Listener, Native, Worker, close_to, heldout, json_request, kit

LINE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("native")
    kit("keys", "--dir", d)
    kit("rollback", "--out", d / "empty.rollback")
    for v in (1, 2):
        kit("package", "--dir", d, "--input", EXAMPLE / f"model_v{v}", "--out", d / f"net{v}.tgsp", "--model", MODEL,
            "--version", v, "--sequence", 10 * v)
    return d


@pytest.fixture(scope="module")
def native(folder):
    n = Native(folder)
    yield n
    n.close()


@pytest.fixture(scope="module")
def worker(folder, native):
    """One for the whole file: what a client does to it shows in whoever comes next."""
    (folder / "serve").mkdir()
    listener = Listener(folder / "serve")
    w = Worker(folder, folder / "net1.tgsp", listener, native=native, threads=1).serve()
    yield w
    assert w.process.poll() is None, w.log()
    w.stop()
    listener.close()


@pytest.fixture(scope="module")
def images():
    return heldout()


def right(model, images, k=1):
    """k predictions in one call are PyTorch's."""
    shape, x, want = images
    got_shape, got = model.run([k, *shape], [v for image in x[:k] for v in image])
    assert got_shape == [k, 10]
    return close_to(got, [v for row in want[:k] for v in row])


# ---- what it is for ----

def test_predictions_are_pytorchs(worker, native, images):
    m = tg.Model(native.path)
    assert (m.info.name.decode(), m.version, m.info.sequence, m.info.can_run) == (MODEL, "1", 10, 1)
    assert bytes(m.info.package[:32]).hex() == worker.messages[-2]["header_sha256"]
    (i,), (o,) = m.inputs(), m.outputs()
    assert (i.name, i.type, list(i.dims[:i.n_dims])) == (b"input", 10, [-1, 1, 8, 8])
    assert (o.name, o.type, list(o.dims[:o.n_dims])) == (b"logits", 10, [-1, 10])
    for k in (1, 5, 1, 8):
        assert right(m, images, k)
    m.close()


def test_several_calls_under_way(worker, native, images):
    shape, x, want = images
    m = tg.Model(native.path, slots=4)
    for _ in range(3):
        calls = []
        for image in x[:4]:
            call = m.begin()
            call.shape(0, [1, *shape])
            call.write(0, struct.pack("<64f", *image))
            call.submit()
            calls.append(call)
        with pytest.raises(tg.Failed) as e:
            m.begin()
        assert e.value.status == "AGAIN"
        for call, row in zip(calls, want):
            call.wait()
            assert close_to(call.floats(0), row)
            call.end()
    m.close()


def test_calls_go_in_the_order_they_were_begun(worker, native, images):
    shape, x, want = images
    m = tg.Model(native.path, slots=4)
    a, b, d = m.begin(), m.begin(), m.begin()
    for call, image in ((a, x[0]), (d, x[2])):
        call.shape(0, [1, *shape])
        call.write(0, struct.pack("<64f", *image))
    with pytest.raises(tg.Failed) as e:
        d.submit()
    assert e.value.status == "STATE"
    a.submit()
    b.end()  # begun, and given up: no hole is left
    d.submit()
    for call, row in ((a, want[0]), (d, want[2])):
        call.wait()
        assert close_to(call.floats(0), row)
        call.end()
    assert right(m, images)
    m.close()


def test_metrics_count_calls_and_programs(worker, native, images):
    before = worker.metrics()
    m = tg.Model(native.path)
    for k in (1, 1, 4):
        assert right(m, images, k)
    b = tg.Bare(native.path)  # the library would not let a wrong shape through
    kind, body, fds = b.ring(1, [4096, 4096])
    assert kind == tg.RING_MADE and Ring(fds[0], body).call(4, [1, 2, 8, 8])[0] != 0
    after = worker.metrics()
    grown = {name: after[f"tensorguard_native_{name}"] - before[f"tensorguard_native_{name}"] for name in ("call_success", "call_failure")}
    assert grown == {"call_success": 3, "call_failure": 1}
    assert after["tensorguard_native_clients"] >= 2
    b.close()
    m.close()


def test_spinning_on_both_sides(folder, images, tmp_path):
    native = Native(tmp_path)
    w = Worker(folder, folder / "net1.tgsp", native=native, native_spin_us=200, threads=1).serve()
    m = tg.Model(native.path, spin_ns=200_000)
    for _ in range(200):
        assert right(m, images)
    time.sleep(0.01)  # it sleeps again
    assert right(m, images)
    m.close()
    w.stop()
    native.close()


def test_http_beside_it(worker, native, images):
    shape, x, _ = images
    m = tg.Model(native.path)
    stop, bad = threading.Event(), []

    def http():
        while not stop.is_set():
            if worker.infer(json_request(shape, x[:2]))[0] != 200:
                bad.append(1)

    t = threading.Thread(target=http)
    t.start()
    good = sum(right(m, images) for _ in range(300))
    stop.set()
    t.join()
    assert good == 300 and not bad
    m.close()


# ---- wrong calls are answered ----

def test_wrong_shapes_are_refused_by_library_and_worker(worker, native, images):
    shape, x, _ = images
    m = tg.Model(native.path, open_bytes=4096)
    call = m.begin()
    for dims, why in (([1, 8, 8], "dimensions"), ([1, 2, 8, 8], "dimension 1"), ([-1, 1, 8, 8], "dimension 0"),
                      ([1 << 60, 1, 8, 8], "overflows"), ([17, 1, 8, 8], "room")):
        with pytest.raises(tg.Failed) as e:
            call.shape(0, dims)
        assert e.value.status == "USAGE" and why in e.value.text
    call.end()
    assert right(m, images)
    m.close()
    # the same without the library in between
    b = tg.Bare(native.path)
    kind, body, fds = b.ring(1, [4096, 4096])
    assert kind == tg.RING_MADE
    ring = Ring(fds[0], body)
    for n, dims, why in ((3, [1, 8, 8], b"dimensions"), (4, [1, 2, 8, 8], b"dimension 1"), (17, [1] * 16, b"dimensions"),
                         (4, [1 << 62, 1, 8, 8], b"overflows"), (4, [17, 1, 8, 8], b"room"), (1 << 31, [], b"dimensions")):
        code, reason = ring.call(n, dims)
        assert code != 0 and why in reason, reason
    assert ring.call(4, [1, 1, 8, 8])[0] == 0
    b.close()


def test_an_output_larger_than_its_room_is_an_error(worker, native, images):
    b = tg.Bare(native.path)
    kind, body, fds = b.ring(1, [4096, 16])
    assert kind == tg.RING_MADE
    code, reason = Ring(fds[0], body).call(4, [1, 1, 8, 8])
    assert code != 0 and b"room" in reason
    b.close()


class Ring:
    """The shared memory of the model's one input and one output, worked by hand."""

    def __init__(self, fd, body):
        (self.size,) = struct.unpack_from("<Q", body)
        self.map = mmap.mmap(fd, self.size)
        self.fd = fd
        self.n = 0

    def word(self, line, i=0):
        return struct.unpack_from("<I", self.map, line * LINE + 4 * i)[0]

    def put(self, line, value, i=0):
        struct.pack_into("<I", self.map, line * LINE + 4 * i, value & 0xffffffff)

    def wake(self):
        import ctypes
        self.put(2, self.word(2) + 1)
        at = ctypes.addressof(ctypes.c_uint32.from_buffer(self.map, 2 * LINE))
        ctypes.CDLL(None).syscall(202 if os.uname().machine == "x86_64" else 98, ctypes.c_void_p(at), 1, 1 << 30, None,
                                  None, 0)

    def call(self, n_dims, dims):
        """(code, reason) of a call on the only slot."""
        struct.pack_into("<II16q", self.map, 4096, n_dims, 0, *(list(dims) + [0] * 16)[:16])
        self.n += 1
        self.put(0, self.n)
        self.wake()
        for _ in range(3000):
            if self.word(1) == self.n & 0xffffffff:
                code, = struct.unpack_from("<I", self.map, 4096 + 192)
                return code, self.map[4096 + 192 + 8:4096 + 192 + 256].split(b"\0")[0]
            time.sleep(0.01)
        raise AssertionError("no answer")


# ---- clients that harm themselves, and nobody else ----

@pytest.fixture
def neighbour(worker, native, images):
    """A client that works before, during and after what another one does."""
    m = tg.Model(native.path)
    assert right(m, images)
    yield lambda: right(m, images)
    assert right(m, images)
    m.close()


def test_a_client_that_dies(worker, native, neighbour, images):
    script = ("import sys, struct; sys.path[:0] = {0!r}; import libtensorguard as tg\n"
              "m = tg.Model({1!r}, slots=16)\nfor i in range(16):\n    c = m.begin(); c.shape(0, [1, 1, 8, 8]); c.submit()\n"
              "print('in', flush=True)\nimport time; time.sleep(60)\n")
    script = script.format([str(programs.ROOT / "tests" / "e2e"), str(programs.ROOT / "tests")], native.path)
    for _ in range(6):  # more than there are rings: each is cleaned up
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "in\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert neighbour()


def test_a_client_that_writes_during_its_calls(worker, native, neighbour):
    b = tg.Bare(native.path)
    kind, body, fds = b.ring(4, [1 << 16, 1 << 16])
    ring = Ring(fds[0], body)
    stop = threading.Event()

    def scribble():
        k = 0
        while not stop.is_set():
            k += 1
            slot = 4096 + (k % 4) * ((ring.size - 4096) // 4)
            struct.pack_into("<II16q", ring.map, slot, k % 7, k % 2, *([(k * 7919) % 300 - 3] * 16))
            ring.map[slot + 192:slot + 192 + 600] = os.urandom(600)
            struct.pack_into("<I", ring.map, LINE, k)  # what only the worker should write
            struct.pack_into("<I", ring.map, LINE + 4, k % 2)

    t = threading.Thread(target=scribble)
    t.start()
    for n in range(1, 400):
        ring.put(0, n)
        ring.wake()
        time.sleep(0.0005)
        if n % 50 == 0:
            assert neighbour()
    stop.set()
    t.join()
    b.close()


def test_a_client_that_says_more_calls_than_slots_is_cut_off(worker, native, neighbour):
    for jump in (5, 1 << 31, 0xffffffff):
        b = tg.Bare(native.path)
        _, body, fds = b.ring(4, [4096, 4096])
        ring = Ring(fds[0], body)
        ring.put(0, jump)
        ring.wake()
        assert b.hung_up()
        assert neighbour()
        b.close()
        os.close(fds[0])


def test_a_client_that_fills_its_ring_and_never_reads(worker, native, neighbour, images):
    m = tg.Model(native.path, slots=16)
    for _ in range(16):
        call = m.begin()
        call.shape(0, [1, *images[0]])
        call.submit()
    assert all(neighbour() for _ in range(20))
    m.close()
    b = tg.Bare(native.path, hello=False)  # asks and asks, and reads nothing
    try:
        for _ in range(10000):
            b.send(tg.HELLO, struct.pack("<II", 1, 1))
    except (BrokenPipeError, ConnectionResetError, TimeoutError):
        pass
    assert neighbour()
    b.close()


def test_shared_memory_cannot_be_resized(worker, native):
    b = tg.Bare(native.path)
    _, _, fds = b.ring(1, [4096, 4096])
    for size in (0, 1 << 24):
        with pytest.raises(PermissionError):
            os.ftruncate(fds[0], size)
    b.close()


def test_limits_of_one_user(worker, native, neighbour):
    rings, connections = [], []
    for _ in range(2):  # the neighbour has the third
        b = tg.Bare(native.path)
        assert b.ring(1, [64, 64])[0] == tg.RING_MADE
        rings.append(b)
    b = tg.Bare(native.path)
    kind, body, _ = b.ring(1, [64, 64])
    assert kind == tg.REFUSED and b"of this user" in body
    for _ in range(40):
        connections.append(tg.Bare(native.path, hello=False))
    assert neighbour()
    for each in rings + connections + [b]:
        each.close()
    deadline = time.monotonic() + 30
    while True:  # places are free again
        again = tg.Bare(native.path, hello=False)
        kind = again.ask(tg.HELLO, struct.pack("<II", 1, 1))[0]
        again.close()
        if kind == tg.WELCOME:
            break
        assert time.monotonic() < deadline


@pytest.mark.parametrize("data", [
    b"", b"x", b"\0" * 16, tg.message(tg.HELLO, b""), tg.message(tg.HELLO, b"\1\0\0\0" * 3), tg.message(99, b"\0" * 8),
    tg.message(tg.WELCOME, b"\0" * 600), tg.message(tg.HELLO, struct.pack("<II", 2, 1)), tg.message(tg.RING, b"\0" * 1032),
    os.urandom(60000)], ids=range(10))
def test_what_is_no_message_ends_the_connection(worker, native, neighbour, data):
    b = tg.Bare(native.path, hello=False)
    if data:
        b.socket.send(data)
    else:
        b.socket.shutdown(1)
    assert b.hung_up()
    b.close()


@pytest.mark.parametrize("slots,rooms,why", [
    (1, [64], b"the model has 2"), (1, [1 << 62, 64], b"MiB"), (16, [1 << 22, 1 << 22], b"MiB"), (1, [64, 64, 64], b"has 2")])
def test_rings_that_are_refused(worker, native, slots, rooms, why):
    b = tg.Bare(native.path)
    kind, body, fds = b.ring(slots, rooms)
    assert kind == tg.REFUSED and why in body and not fds
    assert b.ring(1, [4096, 4096])[0] == tg.RING_MADE  # it may ask again
    kind, body, _ = b.ring(1, [4096, 4096])
    assert kind == tg.REFUSED and b"already" in body
    b.close()


def test_an_older_or_newer_protocol_is_refused_with_words(worker, native):
    b = tg.Bare(native.path, hello=False)
    kind, body, _ = b.ask(tg.HELLO, struct.pack("<II", 2, 9))
    assert kind == tg.REFUSED and b"version 1" in body
    b.close()


# ---- from one worker to the next ----

class Caller(threading.Thread):
    """Calls in a row; every failure is kept. Answers must be one of the two versions'."""

    def __init__(self, path, answers, **options):
        super().__init__()
        self.model, self.answers, self.options = tg.Model(path, **options), answers, options
        self.stopping, self.seen, self.failed, self.good = threading.Event(), [], [], 0

    def run(self):
        shape, image = self.answers[0]
        while not self.stopping.is_set():
            try:
                _, got = self.model.run([1, *shape], image, 60 * tg.SECOND)
                version = next((v for v in (1, 2) if close_to(got, self.answers[v])), None)
                assert version, "neither version's answer"
                if self.seen[-1:] != [version]:
                    self.seen.append(version)
                self.good += 1
            except Exception as e:  # noqa: BLE001 - whatever it is, it is a failed call
                self.failed.append(repr(e))
            time.sleep(0.001)

    def end(self):
        self.stopping.set()
        self.join()
        version = self.model.version
        self.model.close()
        return version


@pytest.fixture(scope="module")
def answers(folder):
    """{0: (shape, an image), 1 and 2: what each version answers to it}"""
    import numpy
    base = EXAMPLE / "heldout"
    image = numpy.load(base / "images.npy")[0]
    return {0: (list(image.shape), [float(v) for v in image.ravel()]),
            **{v: [float(x) for x in numpy.load(base / f"logits_v{v}.npy")[0]] for v in (1, 2)}}


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_no_call_fails_when_a_new_version_takes_over(folder, answers, tmp_path):
    native = Native(tmp_path)
    old = Worker(folder, folder / "net1.tgsp", native=native, threads=1).serve()
    callers = [Caller(native.path, answers), Caller(native.path, answers, spin_ns=50_000)]
    for caller in callers:
        caller.start()
    wait_for(lambda: all(caller.good > 20 for caller in callers))
    new = Worker(folder, folder / "net2.tgsp", native=native, threads=1).serve()
    old.tell("drain")
    assert old.wait() == 0 and old.receive() == {"event": "drained"}
    wait_for(lambda: all(caller.seen[-1:] == [2] for caller in callers))
    for caller in callers:
        assert caller.end() == "2"
        assert not caller.failed and caller.seen == [1, 2]
    new.stop()
    native.close()


def test_no_call_fails_when_a_worker_is_killed(folder, answers, tmp_path):
    native = Native(tmp_path)
    first = Worker(folder, folder / "net1.tgsp", native=native, threads=1).serve()
    caller = Caller(native.path, answers, reconnect_ns=60 * tg.SECOND)
    caller.start()
    wait_for(lambda: caller.good > 20)
    first.process.kill()
    first.wait()
    second = Worker(folder, folder / "net1.tgsp", native=native, threads=1).serve()
    had = caller.good
    wait_for(lambda: caller.good > had + 20)
    caller.end()
    assert not caller.failed and caller.seen == [1]
    second.stop()
    native.close()


def test_calls_under_way_go_along(folder, answers, tmp_path):
    """Handed in, being written, and abandoned, when the worker is killed."""
    native = Native(tmp_path)
    first = Worker(folder, folder / "net1.tgsp", native=native, threads=1).serve()
    m = tg.Model(native.path, slots=8, reconnect_ns=60 * tg.SECOND)
    shape, image = answers[0]
    os.kill(first.pid, signal.SIGSTOP)
    os.waitpid(first.pid, os.WUNTRACED)  # stopped, every thread of it
    calls = []
    for k in range(6):
        call = m.begin()
        call.shape(0, [1, *shape])
        call.write(0, struct.pack("<64f", *(image if k < 5 else [0.0] * 64)))
        if k < 4:
            call.submit()
        calls.append(call)
    calls[1].end()
    first.process.kill()
    first.wait()
    second = Worker(folder, folder / "net2.tgsp", native=native, threads=1).serve()
    for k in (0, 2, 3):
        calls[k].wait()
        assert close_to(calls[k].floats(0), answers[2])
    calls[5].write(0, struct.pack("<64f", *image))  # its pointers are still good
    calls[4].submit()
    calls[5].submit()
    for k in (4, 5):
        calls[k].wait()
        assert close_to(calls[k].floats(0), answers[2])
    for k in (0, 2, 3, 4, 5):
        calls[k].end()
    for _ in range(20):
        assert close_to(m.run([1, *shape], image)[1], answers[2])
    m.close()
    second.stop()
    native.close()


def test_without_a_worker_calls_say_so(folder, answers, tmp_path):
    native = Native(tmp_path)
    w = Worker(folder, folder / "net1.tgsp", native=native, threads=1).serve()
    m = tg.Model(native.path, reconnect_ns=tg.SECOND // 5)
    w.stop()
    native.close()
    shape, image = answers[0]
    with pytest.raises(tg.Failed) as e:
        m.run([1, *shape], image)
    assert e.value.status == "CLOSED"
    m.close()
    with pytest.raises(tg.Failed) as e:
        tg.Model(native.path)
    assert e.value.status == "IO" and native.path in e.value.text
