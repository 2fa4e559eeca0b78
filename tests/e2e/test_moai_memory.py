"""Where a model's weights are: searched by the worker in itself, and by root from outside.

Levels: "locked" is the default; "secret" needs memfd_secret in the kernel and is skipped, saying so, where it is not there.
"""
import contextlib
import ctypes
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess

import pytest

import programs
import tg
from moai_launcher import EXAMPLE, MODEL, Listener, Worker, heldout, json_request, kit
from test_moai_protect import PLAIN_BUILD, ROOT_ONLY, mappings, status

MOAI = programs.path("tensorguard-moai")


def secret_here():
    """Can this user have memory of memfd_secret (system call 447) beyond its limit on locked memory?"""
    fd = ctypes.CDLL(None, use_errno=True).syscall(447, 0)
    if fd >= 0:
        os.close(fd)
    return fd >= 0 and programs.protection() == "locked"


NO_KEPT = {"outside": {"pages": 0}, "inside": {"clusters": 0}}
LEVELS = ["any"] if programs.protection() == "any" else [
    "locked", pytest.param("secret", marks=pytest.mark.skipif(not secret_here(), reason="no memfd_secret: secretmem.enable=1"))]
SECRET = pytest.mark.skipif(not secret_here(), reason="no memfd_secret (secretmem.enable=1) or no right to lock memory")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("memory")
    kit("keys", "--dir", d)
    kit("rollback", "--out", d / "empty.rollback")
    for v in ("v1", "v2"):
        kit("package", "--dir", d, "--input", EXAMPLE / f"model_{v}", "--out", d / f"{v}.tgsp", "--model", MODEL)
    return d


def needles(version):
    """Pieces of the model, 24 bytes of weights each, none of which is like filler."""
    data = (EXAMPLE / f"model_{version}" / "model.onnx").read_bytes()
    dice, out = random.Random(11), []
    while len(out) < 96:
        at = dice.randrange(len(data) - 24)
        piece = data[at:at + 24]
        if len(set(piece)) > 16:
            out.append(piece)
    return out


def searched(pid, pieces):
    """[(mapping, number of pieces)] where any is found, over all that root can read; and the bytes read."""
    found, size = [], 0
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for m in mappings(pid):
            if "r" not in m.mode or m.path.startswith("[v"):
                continue
            try:
                data = os.pread(mem.fileno(), m.end - m.start, m.start)
            except OSError:
                continue
            size += len(data)
            n = sum(piece in data for piece in pieces)
            if n:
                found.append((m, n))
    return found, size


def is_region(m):
    return {"dd", "wf"} <= set(m.flags)


def verify_words(folder):
    return [MOAI, "--verify-memory", "--package", folder / "v1.tgsp", "--next", folder / "v2.tgsp", "--trust", folder / "store.tgtrust",
            "--key", folder / "device.priv", "--fleet", "F", "--device-id", "D"]


def verify(folder, *more):
    return subprocess.run([*verify_words(folder), *more], capture_output=True, text=True, timeout=300)


@PLAIN_BUILD
@pytest.mark.parametrize("level", LEVELS)
def test_the_worker_finds_weights_in_the_region_only(folder, level):
    done = verify(folder, "--protection", level, "--threads", "3", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    stages = {s["stage"]: s for s in json.loads(done.stdout)["stages"]}
    assert len(stages) == 6 + ("kept" in stages["loaded"]) and all(s["ok"] for s in stages.values())
    for name, s in stages.items():
        assert s["level"] == {"any": "none"}.get(level, level)
        if not name.startswith("control"):
            assert s["outside"]["pages"] == 0 == s.get("kept", NO_KEPT)["outside"]["pages"], name
        assert s["outside"]["searched"] > 20 << 20 and s["clusters"] >= 8
    for name in ("loaded", "during inference"):
        assert stages[name]["inside"]["clusters"] > 0
        assert stages[name]["inside"]["copies"] <= 1.2  # one, where the places were found
    assert stages["control: one piece planted"]["outside"]["pages"] == 1
    for name in ("before loading", "after the swap to the next", "after unloading"):
        assert stages[name]["inside"]["clusters"] == 0 == stages[name].get("kept", NO_KEPT)["inside"]["clusters"], name


@PLAIN_BUILD
def test_weights_that_the_runtime_computed_anew_are_searched_for_too(folder):
    """ResNet-18, whose BatchNorms are folded into the layers before: most of what is kept are no bytes of the package."""
    source = folder / "folded"
    source.mkdir()
    subprocess.run(["/usr/bin/python3", programs.ROOT / "tests" / "bench" / "make_model.py", "resnet18", source / "model.onnx"], check=True)
    kit("package", "--dir", folder, "--input", source, "--out", folder / "folded.tgsp", "--model", "folded")
    words = [MOAI, "--verify-memory", "--package", folder / "folded.tgsp", "--trust", folder / "store.tgtrust", "--key",
             folder / "device.priv", "--fleet", "F", "--device-id", "D", "--protection", LEVELS[0], "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    stages = {s["stage"]: s for s in json.loads(done.stdout)["stages"]}
    if "kept" not in stages["loaded"]:
        pytest.skip("this kernel has no Landlock, so nothing is baked")
    assert all(s["ok"] for s in stages.values())
    loaded = stages["loaded"]
    assert loaded["inside"]["clusters"] < loaded["clusters"] / 2  # as they are in the package
    assert loaded["kept"]["inside"]["clusters"] > loaded["kept"]["clusters"] / 2
    assert stages["control: one kept piece planted"]["kept"]["outside"] == {"pages": 1, "clusters": 1}
    for name in ("loaded", "during inference", "after the swap to the next", "after unloading"):
        assert stages[name]["kept"]["outside"] == {"pages": 0, "clusters": 0}, name
    assert stages["after unloading"]["kept"]["inside"]["clusters"] == 0


@PLAIN_BUILD
@pytest.mark.parametrize("level", LEVELS)
def test_what_is_handed_over_is_listed_and_told_from_a_leak(folder, level):
    sizes = {name: (EXAMPLE / "model_v1" / name).stat().st_size for name in ("model.onnx", "labels.txt")}
    words = [word for name in sizes for word in ("--handover", name)]
    done = verify(folder, "--protection", level, *words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    stages = {s["stage"]: s for s in json.loads(done.stdout)["stages"]}
    assert list(stages)[-3:] == ["handed over", "after the swap to the next", "after unloading"]
    assert all(s["ok"] for s in stages.values())
    seen = stages["handed over"]
    assert [(h["file"], h["bytes"], h["where"]) for h in seen["handovers"]] == [
        (name, size, "memfd:tensorguard-handover") for name, size in sizes.items()]
    model, labels = seen["handovers"]
    assert model["clusters"] == seen["clusters"] == seen["handed"]["clusters"] and labels["clusters"] == 0
    assert seen["handed"]["searched"] >= sum(sizes.values())
    for name, s in stages.items():  # and never counted as outside
        assert s["outside"]["clusters"] == (1 if name == "control: one piece planted" else 0) or name.startswith("control: one kept"), name
        assert ("handed" in s) == (name == "handed over")
    told = verify(folder, "--protection", level, *words).stdout
    assert re.search(rf"^    model.onnx: {sizes['model.onnx']} bytes in memfd:tensorguard-handover, (\d+) of \1 places$", told, re.M), told
    if "kept" in seen:
        assert re.search(r"^    as the runtime keeps them +outside: 0 found   inside: \d+ of \d+ places$", told, re.M), told
    assert re.search(rf"^    labels.txt: {sizes['labels.txt']} bytes in memfd:tensorguard-handover, 0 of \d+ places$", told, re.M), told


@PLAIN_BUILD
def test_a_package_that_is_not_run_is_searched_too(folder):
    """It is held, to be handed over: there is no inference."""
    source = folder / "held"
    source.mkdir()
    numbers = random.Random(5)
    (source / "saved_model.pb").write_bytes(struct.pack("<30000f", *(numbers.gauss(0, 1) for _ in range(30000))))
    kit("package", "--dir", folder, "--input", source, "--out", folder / "held.tgsp", "--model", "held", "--format", "savedmodel")
    words = [MOAI, "--verify-memory", "--package", folder / "held.tgsp", "--trust", folder / "store.tgtrust", "--key",
             folder / "device.priv", "--fleet", "F", "--device-id", "D", "--protection", "any", "--json"]
    done = subprocess.run([*words, "--handover", "saved_model.pb"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    stages = {s["stage"]: s for s in json.loads(done.stdout)["stages"]}
    assert "during inference" not in stages and stages["handed over"]["handed"]["clusters"] == stages["handed over"]["clusters"]
    assert all(s["inside"]["pages"] == 0 for s in stages.values())  # it was verified, and nothing of it kept
    assert subprocess.run(words, capture_output=True, timeout=300).returncode == 11  # nobody may be handed it: refused


@PLAIN_BUILD
def test_a_file_to_hand_over_that_is_not_there(folder):
    done = verify(folder, "--protection", "any", "--handover", "weights.bin", "--json")
    assert done.returncode == 3 and "--handover: the package has no file 'weights.bin'" in done.stdout + done.stderr, done.stderr
    found = json.loads(done.stdout)["stages"]
    assert len(found) == 4 + ("kept" in found[-1])  # until then
    assert verify(folder, *["--handover", "model.onnx"] * 17).returncode == 2


@PLAIN_BUILD
def test_the_search_says_what_is_missing(folder):
    done = subprocess.run([MOAI, "--verify-memory", "--package", folder / "none.tgsp", "--trust", folder / "store.tgtrust", "--key",
                           folder / "device.priv"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 10 or "none.tgsp" in done.stderr
    assert subprocess.run([MOAI, "--verify-memory"], capture_output=True, timeout=60).returncode == 2
    files = {"--package": folder / "v1.tgsp", "--trust": folder / "store.tgtrust", "--key": folder / "device.priv"}
    for name in files:  # each in turn is a file of another kind: the error says which
        words = {**files, name: EXAMPLE / "model_v1" / "labels.txt"}
        done = subprocess.run([MOAI, "--verify-memory", "--protection", "any", *(w for pair in words.items() for w in pair)],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 4 and "labels.txt" in done.stderr.splitlines()[-1], done.stderr


@pytest.fixture(params=LEVELS)
def worker(request, folder, tmp_path):
    listener = Listener(tmp_path)
    w = Worker(folder, folder / "v1.tgsp", listener, protection=request.param)
    w.level = request.param
    w.serve()
    yield w
    w.stop()
    listener.close()


@ROOT_ONLY
@PLAIN_BUILD
def test_root_finds_weights_in_the_region_only(worker):
    pieces = needles("v1")
    shape, images, _ = heldout()
    for _ in range(3):  # between and after predictions
        found, size = searched(worker.pid, pieces)
        assert size > 20 << 20
        assert not [(m.path, n) for m, n in found if not is_region(m)]
        # the search works: at level locked root sees them, at level secret not even root does
        assert bool(found) == (worker.level != "secret")
        assert worker.infer(json_request(shape, images[:2]))[0] == 200


@ROOT_ONLY
@PLAIN_BUILD
def test_root_finds_weights_in_the_region_only_during_inference(worker):
    """Searched while two clients, processes of their own, ask without a pause."""
    pieces, fork = needles("v1"), multiprocessing.get_context("fork")
    shape, images, _ = heldout()
    body = json.dumps(json_request(shape, images[:16]))
    stop, good, bad = fork.Event(), fork.Value("i", 0), fork.Value("i", 0)

    def ask():
        while not stop.is_set():
            count = good if worker.infer(body)[0] == 200 else bad
            with count.get_lock():
                count.value += 1

    clients = [fork.Process(target=ask) for _ in range(2)]
    for c in clients:
        c.start()
    try:
        tg.wait_for("an answer", lambda: good.value)
        for _ in range(2):
            before = good.value
            found, size = searched(worker.pid, pieces)
            assert good.value > before  # predictions went on meanwhile
            assert size > 20 << 20
            assert not [(m.path, n) for m, n in found if not is_region(m)]
            assert bool(found) == (worker.level != "secret")
    finally:
        stop.set()
        for c in clients:
            c.join()
    assert bad.value == 0 and [c.exitcode for c in clients] == [0, 0]


@ROOT_ONLY
@PLAIN_BUILD
def test_a_worker_that_unloads_its_model_is_gone(worker):
    """Nothing is left to search from outside: the process has ended, and with it every page of it."""
    pid = worker.pid
    worker.tell("drain")
    while (message := worker.receive()) is not None:
        assert message["event"] == "drained"
    assert worker.wait() == 0
    assert not os.path.exists(f"/proc/{pid}")


@ROOT_ONLY
@PLAIN_BUILD
@pytest.mark.parametrize("level", LEVELS)
def test_root_finds_nothing_in_a_process_that_has_unloaded(folder, level):
    """--verify-memory is a process that goes on after unloading: it is searched while its answer waits for a pipe that is full."""
    out, into = os.pipe()
    os.set_blocking(into, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(into, b"\n" * 4096)
    os.set_blocking(into, True)
    child = subprocess.Popen([*verify_words(folder), "--protection", level, "--json"], stdout=into, stderr=subprocess.DEVNULL)
    os.close(into)

    def waits():
        assert child.poll() is None
        return pathlib.Path(f"/proc/{child.pid}/syscall").read_text().startswith("1 0x1 ")  # write, to its standard output

    try:
        tg.wait_for("the answer", waits, deadline=120)
        found, size = searched(child.pid, needles("v1") + needles("v2"))
    finally:
        with open(out, "rb") as f:
            answer = f.read()
    assert child.wait(60) == 0
    assert json.loads(answer)["stages"][-1]["stage"] == "after unloading"
    assert size > 5 << 20 and found == []


@ROOT_ONLY
@PLAIN_BUILD
def test_after_a_swap_the_new_worker_holds_nothing_of_the_old(worker, folder):
    w = Worker(folder, folder / "v2.tgsp", worker.listener, protection=worker.level)
    w.serve()
    worker.tell("drain")
    assert worker.receive()["event"] in ("serving", "drained")
    only_old = [p for p in needles("v1") if p not in (EXAMPLE / "model_v2" / "model.onnx").read_bytes()]
    assert len(only_old) > 48
    assert searched(w.pid, only_old)[0] == []
    assert not [m.path for m, _ in searched(w.pid, needles("v2"))[0] if not is_region(m)]
    w.stop()


@ROOT_ONLY
@PLAIN_BUILD
def test_no_descriptor_and_no_swap_holds_weights(worker):
    pieces = needles("v1")
    for fd in pathlib.Path(f"/proc/{worker.pid}/fd").iterdir():
        target = os.readlink(fd)
        if target.startswith(("socket:", "anon_inode:", "pipe:", "/dev/")):
            continue
        data = fd.read_bytes()
        assert not [p for p in pieces if p in data], target
    assert status(worker.pid)["VmSwap"].split()[0] == "0"


def memory_of(core):
    """A core's memory (its PT_LOAD segments). Its notes hold the registers, in which a thread that was stopped in the middle of
    a product has some of the numbers it works on: SECURITY.md says so."""
    offset, size, n = struct.unpack_from("<Q", core, 32)[0], *struct.unpack_from("<HH", core, 54)
    rows = [struct.unpack_from("<IIQQQQ", core, offset + i * size) for i in range(n)]
    return b"".join(core[r[2]:r[2] + r[5]] for r in rows if r[0] == 1)


@ROOT_ONLY
@PLAIN_BUILD
@pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is not here")
def test_a_core_taken_by_root_holds_no_weights(worker, tmp_path):
    core = tmp_path / "core"
    done = subprocess.run(["gdb", "-nx", "-batch", "-p", str(worker.pid), "-ex", f"generate-core-file {core}", "-ex", "detach"],
                          capture_output=True, text=True, timeout=300)
    assert core.exists(), done.stderr
    data = memory_of(core.read_bytes())
    core.unlink()
    assert b"tensorguard-moai" in data and not [p for p in needles("v1") if p in data]


def region_addresses(pid):
    """The first bytes of writable or sealed mappings of secret memory."""
    return [m.start for m in mappings(pid) if "secretmem" in m.path and "r" in m.mode]


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def vm_read(pid, address, n):
    """process_vm_readv; -1 when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(n)
    here, there = IoVec(ctypes.cast(buffer, ctypes.c_void_p), n), IoVec(address, n)
    libc.process_vm_readv.restype = ctypes.c_ssize_t
    return libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)


@ROOT_ONLY
@PLAIN_BUILD
@SECRET
def test_secret_memory_cannot_be_read_even_by_root(folder, tmp_path):
    listener = Listener(tmp_path)
    w = Worker(folder, folder / "v1.tgsp", listener, protection="secret")
    assert w.healthy()["protection"] == "secret"
    w.tell("serve")
    addresses = region_addresses(w.pid)
    assert len(addresses) >= 8
    ordinary = next(m.start for m in mappings(w.pid) if m.path.endswith("tensorguard-moai") and m.mode == "r--p")
    assert vm_read(w.pid, ordinary, 64) == 64  # the way of reading works
    with open(f"/proc/{w.pid}/mem", "rb", buffering=0) as mem:
        assert len(os.pread(mem.fileno(), 64, ordinary)) == 64
        for a in addresses:
            assert vm_read(w.pid, a, 64) == -1
            with pytest.raises(OSError):
                os.pread(mem.fileno(), 64, a)
    if shutil.which("gdb"):
        done = subprocess.run(["gdb", "-nx", "-batch", "-p", str(w.pid), "-ex", f"x/8xb {ordinary}", "-ex", f"x/8xb {addresses[0]}",
                               "-ex", f"x/8xb {addresses[-1]}"], capture_output=True, text=True, timeout=120)
        assert re.search(rf"{ordinary:#x}.*0x7f", done.stdout), done.stdout + done.stderr
        assert (done.stdout + done.stderr).count("Cannot access memory") == 2 or "Cannot access memory" in done.stderr
    text = w.ask("GET", "/metrics")[2].decode()
    assert re.search(r"\ntensorguard_memory_protection\{.*\} 2\n", text)
    w.stop()
    listener.close()
