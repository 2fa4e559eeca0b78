"""Hand-over: sealed files of a package for allowed users, told to the agent; packages that are held, not run."""
import fcntl
import io
import json
import mmap
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile

import pytest

import libtensorguard as tg
import programs
from moai_launcher import EXAMPLE, MODEL, Listener, Native, Worker, kit
from pack import tgsp_reader
from tg import wait_for

F_GET_SEALS, ALL_SEALS = 1034, 0xf  # SEAL, SHRINK, GROW, WRITE
ME = os.getuid()
ROOMY = pytest.mark.skipif(programs.protection() == "any", reason="what is handed over must be locked, and this user may lock too little")


def safetensors(**tensors):
    """name=(dtype, shape, bytes)"""
    head, body = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


WEIGHTS = {"w": ("F32", [2, 3], struct.pack("<6f", *range(6))), "b": ("BF16", [4], bytes(range(8)))}
FILES = {"saved_model.pb": b"\x08\x01a SavedModel" * 50, "variables/variables.data-00000-of-00001": os.urandom(100_000),
         "weights.safetensors": safetensors(**WEIGHTS), "empty.txt": b""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("handover")
    kit("keys", "--dir", d)
    kit("rollback", "--out", d / "empty.rollback")
    for name, data in FILES.items():
        (d / "saved" / name).parent.mkdir(parents=True, exist_ok=True)
        (d / "saved" / name).write_bytes(data)
    kit("package", "--dir", d, "--input", d / "saved", "--out", d / "saved.tgsp", "--model", "segmenter", "--format",
        "savedmodel")
    kit("package", "--dir", d, "--input", EXAMPLE / "model_v1", "--out", d / "net.tgsp", "--model", MODEL)
    return d


@pytest.fixture(scope="module")
def native():
    """Where other users get to, as pytest's own folders are not."""
    with tempfile.TemporaryDirectory(prefix="tg-handover-") as d:
        os.chmod(d, 0o755)
        n = Native(pathlib.Path(d))
        os.chmod(n.path, 0o666)
        yield n
        n.close()


@pytest.fixture(scope="module")
def worker(folder, native):
    """It holds a SavedModel."""
    listener = Listener(folder)
    w = Worker(folder, folder / "saved.tgsp", listener, native=native, takers=[ME, 4242]).serve()
    yield w
    assert w.process.poll() is None, w.log()
    w.stop()
    listener.close()


@pytest.fixture
def model(worker, native):
    m = tg.Model(native.path)
    yield m
    m.close()


def test_a_package_that_is_not_run_is_held(worker, model):
    assert (model.info.name, model.info.can_run, model.info.can_take) == (b"segmenter", 0, 1)
    files = {name: n for name, n in model.files() if not name.startswith(".tensorguard/")}
    assert files == {name: len(data) for name, data in FILES.items()}
    with pytest.raises(tg.Failed) as e:
        model.begin()
    assert e.value.status == "UNSUPPORTED"
    about = json.loads(worker.ask("GET", "/v2/models/segmenter")[2])
    assert about["inputs"] == [] and about["platform"] == "tensorguard_held"
    status, _, body = worker.infer("{}", model="segmenter")
    assert status >= 400 and b"handed over" in body


def test_each_file_comes_whole_sealed_and_told(worker, model):
    for name, data in FILES.items():
        fd = model.open_file(name)
        assert worker.receive() == {"event": "handover", "file": name, "size": len(data), "uid": ME}
        with open(f"/proc/self/fd/{fd}", "rb") as f:
            assert f.read() == data
        assert os.read(fd, 10) == data[:10]  # an offset of its own
        assert fcntl.fcntl(fd, F_GET_SEALS) == ALL_SEALS
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        os.close(fd)


def test_nobody_can_write_grow_or_shrink_it(worker, model):
    bare = tg.Bare(model.path)
    kind, _, fds = bare.ask(tg.TAKE, b"saved_model.pb".ljust(1032, b"\0") + b"\0" * 260)
    assert kind == tg.TAKEN
    worker.receive()
    for try_it in (lambda fd: os.write(fd, b"x"), lambda fd: os.ftruncate(fd, 1), lambda fd: os.ftruncate(fd, 1 << 20),
                   lambda fd: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
                   lambda fd: fcntl.fcntl(fd, 1033, 0)):
        with pytest.raises(PermissionError):
            try_it(fds[0])
    seen = mmap.mmap(fds[0], 0, mmap.MAP_SHARED, mmap.PROT_READ)
    assert seen[:] == FILES["saved_model.pb"]
    seen.close()
    os.close(fds[0])
    bare.close()


@pytest.mark.skipif(ME != 0, reason="only root may look into a worker's mappings")
def test_the_workers_copy_is_locked_and_made_once(worker, model):
    before = len(copies(worker))
    for _ in range(3):
        os.close(model.open_file("variables/variables.data-00000-of-00001"))
        worker.receive()
    after = copies(worker)
    assert len(after) <= before + 1 and all("lo" in flags for flags in after)


def copies(worker):
    """VmFlags of the worker's mappings of what was handed over (root and the worker's user may look)."""
    flags, mine = [], False
    for line in open(f"/proc/{worker.pid}/smaps"):
        if "-" in line.split(" ", 1)[0]:
            mine = "memfd:tensorguard-handover" in line
        elif mine and line.startswith("VmFlags:"):
            flags.append(line.split()[1:])
    return flags


def test_metrics_count_hand_overs(worker, model):
    size = len(FILES["saved_model.pb"])
    before = worker.metrics()
    for _ in range(2):
        os.close(model.open_file("saved_model.pb"))
        worker.receive()
    after = worker.metrics()
    assert after["tensorguard_handover_count"] == before["tensorguard_handover_count"] + 2
    assert after["tensorguard_handover_bytes"] == before["tensorguard_handover_bytes"] + 2 * size
    assert size <= after["tensorguard_handover_held_bytes"] <= before["tensorguard_handover_held_bytes"] + size  # one copy
    with pytest.raises(tg.Failed):
        model.open_file("nothing")
    assert worker.metrics()["tensorguard_handover_count"] == after["tensorguard_handover_count"]


def test_tensors_come_alone(worker, model):
    for name, (dtype, shape, data) in WEIGHTS.items():
        fd, got, dims = model.open_tensor("weights.safetensors", name)
        assert worker.receive() == {"event": "handover", "file": "weights.safetensors", "tensor": name, "size": len(data),
                                    "uid": ME}
        assert (got, dims, os.read(fd, 1000)) == (dtype, shape, data)
        os.close(fd)


@pytest.mark.parametrize("path,tensor,status", [
    ("nothing", "", "NOTFOUND"), ("../saved_model.pb", "", "NOTFOUND"), ("/etc/passwd", "", "NOTFOUND"),
    ("saved_model.pb", "w", "FORMAT"), ("weights.safetensors", "nothing", "NOTFOUND")])
def test_what_is_not_there_is_refused_and_not_told(worker, model, path, tensor, status):
    with pytest.raises(tg.Failed) as e:
        model.open_tensor(path, tensor) if tensor else model.open_file(path)
    assert e.value.status == status
    os.close(model.open_file("saved_model.pb"))
    assert worker.receive()["file"] == "saved_model.pb"  # the next thing told


def test_a_stream(worker, model):
    import ctypes as c
    f, e = c.c_void_p(), tg.Error()
    tg.check(tg.LIB.tg_model_fopen(model.p, b"saved_model.pb", c.byref(f), c.byref(e)), e)
    worker.receive()
    libc = c.CDLL(None)
    libc.fread.argtypes = [c.c_void_p, c.c_size_t, c.c_size_t, c.c_void_p]
    data = c.create_string_buffer(10000)
    n = libc.fread(data, 1, 10000, f)
    assert data.raw[:n] == FILES["saved_model.pb"]
    libc.fclose.argtypes = [c.c_void_p]
    libc.fclose(f)


AS_OTHER = """
import os, sys
sys.path[:0] = {path!r}
import libtensorguard as tg  # while it can be read: the checkout may lie below root's own home
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
m = tg.Model({socket!r})
print(m.info.can_take)
try:
    os.close(m.open_file("saved_model.pb"))
    print("got it")
except tg.Failed as e:
    print(e.status)
try:
    print("files" if m.files() else "none")
except tg.Failed as e:
    print(e.status)
"""


@pytest.mark.skipif(ME != 0, reason="needs root to be another user")
@pytest.mark.parametrize("uid,said", [(4243, ["0", "DENIED", "DENIED"]), (4242, ["1", "got it", "files"])])
def test_only_named_users_are_handed_anything(worker, native, tmp_path_factory, uid, said):
    path = [str(programs.ROOT / "tests" / "e2e"), str(programs.ROOT / "tests")]
    done = subprocess.run([sys.executable, "-c", AS_OTHER.format(uid=uid, path=path, socket=native.path)],
                          cwd=os.getcwd(), capture_output=True, text=True, env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"))
    if "Permission denied" in done.stderr or "PermissionError" in done.stderr:
        pytest.skip("another user can't reach this checkout or the test's folder")
    assert done.stdout.split("\n")[:3] == said, done.stderr
    if uid == 4242:
        assert worker.receive() == {"event": "handover", "file": "saved_model.pb", "size": len(FILES["saved_model.pb"]), "uid": 4242}


HAND_OVER = programs.BUILD / "src" / "client" / "hand_over"  # examples/hand-over


def hand_over(socket, *args, **how):
    return subprocess.run([HAND_OVER, socket, *args], capture_output=True, text=True, timeout=60, **how)


def test_the_example_lists_and_takes(worker, native):
    done = hand_over(native.path)
    assert done.returncode == 0, done.stderr
    assert {line.split(None, 1)[1]: int(line.split()[0]) for line in done.stdout.splitlines() if ".tensorguard/" not in line} == \
        {name: len(data) for name, data in FILES.items()}
    for args, before, size in ((["saved_model.pb"], "", len(FILES["saved_model.pb"])), (["empty.txt"], "", 0),
                               (["weights.safetensors", "w"], r"F32, 2 dimensions: ", 24)):
        done = hand_over(native.path, *args)
        assert done.returncode == 0 and re.fullmatch(before + rf"{size} bytes, seals 0xf, /proc/self/fd/\d+\n", done.stdout), done
        assert done.stderr == ""
        assert worker.receive()["file"] == args[0]


@pytest.mark.parametrize("args,said", [
    (["nothing"], "NOTFOUND"), (["weights.safetensors", "nothing"], "NOTFOUND"), (["saved_model.pb", "w"], "FORMAT")])
def test_the_example_says_what_is_not_there(worker, native, args, said):
    done = hand_over(native.path, *args)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith(f"hand_over: {said}: "), done


def test_the_example_says_that_nobody_is_there(tmp_path):
    done = hand_over(tmp_path / "nobody.sock", "x")
    assert done.returncode == 1 and done.stderr.startswith("hand_over: IO: ") and "nobody.sock" in done.stderr
    assert hand_over(tmp_path / "nobody.sock", "a", "b", "c").returncode == 2


def test_the_example_is_refused_for_whom_nobody_named(folder, tmp_path):
    native = Native(tmp_path)
    w = Worker(folder, folder / "saved.tgsp", native=native, takers=[ME + 4243]).serve()
    for args in ([], ["saved_model.pb"], ["weights.safetensors", "w"]):
        done = hand_over(native.path, *args)
        assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("hand_over: DENIED: "), done
        assert "configuration" in done.stderr
    w.stop()
    native.close()


def test_off_by_default(folder, tmp_path):
    native = Native(tmp_path)
    w = Worker(folder, folder / "net.tgsp", native=native).serve()
    m = tg.Model(native.path)
    assert (m.info.can_run, m.info.can_take) == (1, 0)
    for ask in (m.files, lambda: m.open_file("model.onnx")):
        with pytest.raises(tg.Failed) as e:
            ask()
        assert e.value.status == "DENIED" and "configuration" in e.value.text
    m.close()
    w.stop()
    # and what can't be run is refused then
    code, reason, _ = Worker(folder, folder / "saved.tgsp", native=native).failed()
    assert code == "UNSUPPORTED" and "savedmodel" in reason
    native.close()


def test_a_model_that_runs_can_be_handed_over_too(folder, tmp_path):
    native = Native(tmp_path)
    w = Worker(folder, folder / "net.tgsp", native=native, takers=[ME]).serve()
    m = tg.Model(native.path)
    shape, got = m.run([1, 1, 8, 8], [0.0] * 64)
    assert shape == [1, 10]
    fd = m.open_file("model.onnx")
    assert os.read(fd, 1 << 20) == (EXAMPLE / "model_v1" / "model.onnx").read_bytes()
    os.close(fd)
    w.stop()
    # who was handed something keeps it; asking again has nobody to ask
    m.close()
    native.close()


def test_without_an_agent_to_tell_nothing_is_handed_over(folder, tmp_path):
    native = Native(tmp_path)
    w = Worker(folder, folder / "saved.tgsp", native=native, takers=[ME]).serve()
    m = tg.Model(native.path, reconnect_ns=tg.SECOND // 2)
    w.control.shutdown(0)  # the agent reads no more: what the worker says fails
    with pytest.raises(tg.Failed) as e:
        m.open_file("saved_model.pb")
    assert e.value.status in ("CLOSED", "IO", "TIMEOUT", "AGAIN")
    m.close()
    w.stop()
    native.close()


def test_many_in_a_row_are_slowed_down(folder, tmp_path):
    """The agent ends a worker that says too much: it never comes to that."""
    native = Native(tmp_path)
    w = Worker(folder, folder / "saved.tgsp", native=native, takers=[ME]).serve()
    bare = tg.Bare(native.path)
    kinds = []
    for _ in range(60):
        kind, body, fds = bare.ask(tg.TAKE, b"empty.txt".ljust(1032, b"\0") + b"\0" * 260)
        kinds.append(kind)
        assert kind == tg.TAKEN or b"ask again" in body
        for fd in fds:
            os.close(fd)
    assert kinds[:16] == [tg.TAKEN] * 16 and tg.REFUSED in kinds
    bare.close()
    m = tg.Model(native.path)  # the library waits
    os.close(m.open_file("empty.txt"))
    m.close()
    w.stop()
    native.close()


def payload(package):
    """Where it begins in the file."""
    return tgsp_reader.Package(package).sections["payload"][0]


@ROOMY
def test_no_plaintext_stays_that_nobody_asked_for(folder, tmp_path):
    big = tmp_path / "model"
    shutil.copytree(EXAMPLE / "model_v1", big)
    (big / "vocabulary.bin").write_bytes(os.urandom(24 << 20))
    kit("package", "--dir", folder, "--input", big, "--out", tmp_path / "big.tgsp", "--model", MODEL)
    listener, native = Listener(tmp_path), Native(tmp_path)
    w = Worker(folder, tmp_path / "big.tgsp", listener).serve().settled()
    without = w.metrics()["tensorguard_memory_used_bytes"]
    w.stop()
    w = Worker(folder, tmp_path / "big.tgsp", listener, native=native, takers=[ME]).serve().settled()
    assert 0 < w.metrics()["tensorguard_memory_used_bytes"] < without + (12 << 20)
    m = tg.Model(native.path)
    fd = m.open_file("vocabulary.bin")
    with open(f"/proc/self/fd/{fd}", "rb") as f, open(big / "vocabulary.bin", "rb") as g:
        assert f.read() == g.read()
    os.close(fd)
    assert w.metrics()["tensorguard_memory_used_bytes"] < without + (12 << 20)
    m.close()
    w.stop()
    native.close()
    listener.close()


CHUNK = 1 << 20


def chunks_of(package, path, offset, size):
    """The chunks of a package in which bytes of one of its files lie."""
    at = next(f["offset"] for f in json.loads(package.raw("manifest"))["files"] if f["path"] == path) + offset
    return set(range(at // CHUNK, (at + max(size, 1) - 1) // CHUNK + 1))


def damage_all_but(path, keep):
    """Every chunk that is not named is changed where it is stored."""
    p = tgsp_reader.Package(path)
    at, n = p.sections["payload"]
    stored = CHUNK + 16
    with open(path, "r+b") as f:
        for i in range(-(-n // stored)):
            if i not in keep:
                f.seek(at + i * stored + 3)
                byte = f.read(1)[0]
                f.seek(at + i * stored + 3)
                f.write(bytes([byte ^ 1]))


def torch_archive(tensors):
    """What torch.save writes of {name: uint8 tensor}, by hand: its pickle first, each storage an entry of its own."""
    text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()
    number = lambda n: b"J" + struct.pack("<i", n)
    pickle = b"\x80\x02}("
    for i, (name, data) in enumerate(tensors.items()):
        pickle += (text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nByteStorage\n" + text(str(i))
                   + text("cpu") + number(len(data)) + b"tQK\x00" + number(len(data)) + b"\x85K\x01\x85\x89}tR")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in [("data.pkl", pickle + b"u."), ("byteorder", b"little"),
                           *((f"data/{i}", data) for i, data in enumerate(tensors.values())), ("version", b"3\n")]:
            z.writestr(zipfile.ZipInfo("m/" + name), data)
    return out.getvalue(), [z.getinfo(f"m/data/{i}").header_offset for i in range(len(tensors))]


@ROOMY
@pytest.mark.parametrize("path", ["w.safetensors", "w.pt"])
def test_of_a_file_only_what_a_tensor_needs_is_decrypted(folder, tmp_path, path):
    """All other chunks are damaged once it serves: whoever decrypted one would be told."""
    d = tmp_path / "model"
    shutil.copytree(EXAMPLE / "model_v1", d)
    data = {f"t{i}": os.urandom(6 << 20) for i in range(4)}
    if path == "w.pt":
        content, at = torch_archive(data)
    else:
        content, at = safetensors(**{name: ("U8", [len(v)], v) for name, v in data.items()}), []
        at = [len(content) - (4 - i) * (6 << 20) for i in range(4)]
    (d / path).write_bytes(content)
    kit("package", "--dir", folder, "--input", d, "--out", tmp_path / "t.tgsp", "--model", MODEL)
    package = tgsp_reader.Package(tmp_path / "t.tgsp")
    listener, native = Listener(tmp_path), Native(tmp_path)
    w = Worker(folder, tmp_path / "t.tgsp", listener, native=native, takers=[ME]).serve().settled()
    keep = chunks_of(package, path, 0, 4096) | chunks_of(package, path, at[2], (6 << 20) + 4096)
    if path == "w.pt":
        keep |= chunks_of(package, path, len(content) - 4096, 4096)
    damage_all_but(tmp_path / "t.tgsp", keep)
    before = w.metrics()["tensorguard_memory_used_bytes"]
    m = tg.Model(native.path)
    fd, dtype, dims = m.open_tensor(path, "t2")
    with open(f"/proc/self/fd/{fd}", "rb") as f:
        assert (dtype, dims, f.read()) == ("U8", [6 << 20], data["t2"])
    os.close(fd)
    assert w.receive()["tensor"] == "t2"
    assert w.metrics()["tensorguard_memory_used_bytes"] < before + (4 << 20)  # nothing of it stays in the region
    with pytest.raises(tg.Failed) as e:
        m.open_tensor(path, "t1")
    assert e.value.status == "DENIED" and "chunk" in e.value.text
    with pytest.raises(tg.Failed) as e:
        m.open_tensor(path, "t4")
    assert e.value.status == "NOTFOUND" and "no tensor 't4'" in e.value.text
    m.close()
    w.stop()
    native.close()
    listener.close()


def test_it_starts_from_its_bake_and_still_hands_over(folder, tmp_path):
    """Files come from the package, decrypted anew: what serves is the image alone."""
    sealed, states = tmp_path / "net.bake", []
    for bake in ({"bake_out": sealed}, {"bake_in": sealed}):
        (tmp_path / str(len(states))).mkdir()
        native = Native(tmp_path / str(len(states)))
        w = Worker(folder, folder / "net.tgsp", native=native, takers=[ME], **bake).serve()
        states += [word for line in w.log().splitlines() if "moai.bake" in line for word in line.split() if "state=" in word]
        if states[0] == "state=none" and not programs.sanitized():
            pytest.skip("this kernel has no Landlock, so nothing is baked")
        m = tg.Model(native.path)
        assert m.run([1, 1, 8, 8], [0.0] * 64)[0] == [1, 10]
        fd = m.open_file("model.onnx")
        assert os.read(fd, 1 << 20) == (EXAMPLE / "model_v1" / "model.onnx").read_bytes()
        os.close(fd)
        assert w.receive()["file"] == "model.onnx"
        m.close()
        w.stop()
        native.close()
    assert states == ["state=sealed", "state=opened"]


@pytest.mark.parametrize("what,status,text", [("changed", "DENIED", "chunk 0"), ("cut", "FORMAT", "")])
def test_a_package_that_changes_after_the_load_is_not_handed_over(folder, tmp_path, what, status, text):
    package = tmp_path / "net.tgsp"
    package.write_bytes((folder / "net.tgsp").read_bytes())
    native = Native(tmp_path)
    w = Worker(folder, package, native=native, takers=[ME]).serve()
    at = payload(package)
    with open(package, "r+b") as f:
        if what == "cut":
            f.truncate(at + 10)
        else:
            f.seek(at + 10)
            byte = f.read(1)
            f.seek(at + 10)
            f.write(bytes([byte[0] ^ 1]))
    m = tg.Model(native.path)
    with pytest.raises(tg.Failed) as e:
        m.open_file("model.onnx")
    assert e.value.status == status and text in e.value.text
    assert "moai.handover state=unreadable" in w.log()
    assert m.run([1, 1, 8, 8], [0.0] * 64)[0] == [1, 10]  # what serves is not read from there any more
    package.write_bytes((folder / "net.tgsp").read_bytes())
    os.close(m.open_file("model.onnx"))
    assert w.receive()["file"] == "model.onnx"  # the first thing told: what was refused was not
    m.close()
    w.stop()
    native.close()


def test_a_held_package_that_is_damaged_is_refused_while_it_loads(folder, tmp_path):
    native = Native(tmp_path)
    data = bytearray((folder / "saved.tgsp").read_bytes())
    data[payload(folder / "saved.tgsp") + 4000] ^= 1
    (tmp_path / "bad.tgsp").write_bytes(data)
    code, reason, _ = Worker(folder, tmp_path / "bad.tgsp", native=native, takers=[ME]).failed()
    assert code == "AUTH" and "chunk" in reason
    native.close()
