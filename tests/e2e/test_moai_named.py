"""Weights by name from a safetensors file or a PyTorch archive of the package: the network answers as with its weights
inside, to the last bit."""
import shutil
import struct
import sys

import pytest

import onnx_parts
import programs
from moai_launcher import EXAMPLE, MODEL, Listener, Worker, heldout, json_request, kit

sys.path.insert(0, str(programs.ROOT / "tests" / "vectors"))
import make_weights as mw  # noqa: E402

STORAGE = {"F32": ("FloatStorage", 4), "I64": ("LongStorage", 8)}
NET = (EXAMPLE / "model_v1" / "model.onnx").read_bytes()


def strides(shape):
    out, step = [], 1
    for d in reversed(shape):
        out.append(step)
        step *= d
    return tuple(reversed(out))


def transposed(shape, raw):
    """The bytes of the transposed matrix."""
    rows, columns = shape
    v = struct.unpack(f"<{rows * columns}I", raw)
    return struct.pack(f"<{rows * columns}I", *(v[r * columns + c] for c in range(columns) for r in range(rows)))


def archive(tensors, turned=False, zip64=False):
    """A PyTorch archive, one storage for each tensor. turned: matrices are stored the other way round and viewed by .t()."""
    pairs, storages = [], {}
    for i, (name, kind, shape, raw) in enumerate(tensors):
        storage, size = STORAGE[kind]
        stride = strides(shape)
        if turned and kind == "F32" and len(shape) == 2:
            raw, stride = transposed(shape, raw), (1, shape[0])
        storages[str(i)] = raw
        pairs.append((name, mw.tensor(shape, stride, 0, mw.storage(str(i), storage, len(raw) // size))))
    return mw.archive(mw.state(*pairs), storages, zip64=zip64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("named")
    kit("keys", "--dir", d)
    kit("rollback", "--out", d / "empty.rollback")
    return d


def package(folder, at, model, files, **options):
    source = at / "in"
    shutil.copytree(EXAMPLE / "model_v1" / "golden", source / "golden")
    (source / "model.onnx").write_bytes(model)
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    out = at / "net.tgsp"
    kit("package", "--dir", folder, "--input", source, "--out", out, "--model", MODEL,
        *(x for k, v in options.items() for x in ("--" + k.replace("_", "-"), v)))
    return out


def answer(folder, at, path):
    shape, x, _ = heldout()
    listener = Listener(at)
    worker = Worker(folder, path, listener).serve()
    status, _, body = worker.infer(json_request(shape, x))
    worker.stop()
    listener.close()
    assert status == 200, body
    return body


@pytest.fixture(scope="module")
def inside(folder, tmp_path_factory):
    at = tmp_path_factory.mktemp("inside")
    return answer(folder, at, package(folder, at, NET, {}))


BARE, TENSORS = onnx_parts.split(NET)


def test_the_network_really_lost_its_weights(folder, tmp_path):
    """Otherwise the tests below would show nothing."""
    assert len(BARE) < len(NET) / 4 and len(TENSORS) >= 6
    code, _, _ = Worker(folder, package(folder, tmp_path, BARE, {})).failed()
    assert code == "FORMAT"


FILES = {
    "w.safetensors": mw.reference_layout(TENSORS),
    "w.pt": archive(TENSORS),
    "sub/w.pth": archive(TENSORS, turned=True),
    "w.bin": archive(TENSORS, zip64=True),  # told by content
}


@pytest.mark.parametrize("name", FILES)
def test_metadata_names_the_file(folder, tmp_path, inside, name):
    data = FILES[name]
    assert answer(folder, tmp_path, package(folder, tmp_path, BARE, {name: data}, weights_file=name)) == inside


@pytest.mark.parametrize("name", [n for n in FILES if n != "w.bin"])
def test_external_data_names_the_file(folder, tmp_path, inside, name):
    data = FILES[name]
    model, _ = onnx_parts.split(NET, location=name)
    assert answer(folder, tmp_path, package(folder, tmp_path, model, {name: data})) == inside


def test_what_the_file_says_is_what_runs(folder, tmp_path, inside):
    """Other weights under the same names: other answers, which the golden outputs notice."""
    name, kind, shape, raw = next(t for t in TENSORS if len(t[2]) == 2)
    other = [(n, k, s, bytes(len(r)) if n == name else r) for n, k, s, r in TENSORS]
    code, _, _ = Worker(folder, package(folder, tmp_path, BARE, {"w.pt": archive(other)}, weights_file="w.pt")).failed()
    assert code == "STATE"


def refused(folder, at, model, files, **options):
    code, reason, _ = Worker(folder, package(folder, at, model, files, **options)).failed()
    return code, reason


def test_refusals_say_what_is_wrong(folder, tmp_path):
    declared, _ = onnx_parts.split(NET, location="w.pt")
    first = sorted(n for n, _, _, _ in TENSORS)[0]
    fewer = [t for t in TENSORS if t[0] != first]
    wrong = [(n, k, (1, *s) if n == first else s, r) for n, k, s, r in TENSORS]
    hostile = mw.archive(b"\x80\x02" + mw.G("os", "system") + mw.T(mw.S("id")) + b"R.")
    rows = [
        (BARE, {}, {"weights_file": "w.pt"}, "NOTFOUND", "metadata weights_file names the file of weights 'w.pt'"),
        (declared, {}, {}, "NOTFOUND", "the model names the file of weights 'w.pt'"),
        (declared, {"w.pt": archive(fewer)}, {}, "NOTFOUND", f"'{first}' is not in it"),
        (declared, {"w.pt": archive(wrong)}, {}, "FORMAT", f"tensor '{first}' is"),
        (BARE, {"w.pt": hostile}, {"weights_file": "w.pt"}, "DENIED", "this file calls os.system: a model must not"),
        (BARE, {"w.pt": archive(TENSORS)[:-1]}, {"weights_file": "w.pt"}, "FORMAT", "w.pt: ZIP"),
        (BARE, {"w.bin": b"weights, honestly"}, {"weights_file": "w.bin"}, "FORMAT", "neither a safetensors"),
    ]
    for i, (model, files, options, code, words) in enumerate(rows):
        (tmp_path / str(i)).mkdir()
        got, reason = refused(folder, tmp_path / str(i), model, files, **options)
        assert got == code and words in reason, (i, got, reason)
