"""build looks into files of weights: what the worker would refuse is refused at packing; --convert safetensors."""
import struct
import sys

import pytest

import onnx_parts
import pack
import programs
from moai_launcher import EXAMPLE, MODEL, Listener, Worker, heldout, json_request, kit

sys.path.insert(0, str(programs.ROOT / "tests" / "vectors"))
import make_weights as mw  # noqa: E402

CORPUS = programs.ROOT / "tests" / "fuzz" / "corpus"
NET = (EXAMPLE / "model_v1" / "model.onnx").read_bytes()
FOUR = b"\0" * 4


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    return pack.Author(tmp_path_factory.mktemp("author"))


def folder(at, files):
    for name, data in files.items():
        pack.write(at / "in" / name, data)
    return at / "in"


def build(author, at, files, *args, **more):
    return pack.build(author, folder(at, files), at / "out.tgsp", *args, **more)


def opened(author, at, name="out.tgsp"):
    pack.run("open", at / name, "--key", author.key, "--trust", author.pub, "--out-dir", at / "opened")
    return {k.decode(): v for k, v in pack.tree(at / "opened").items()}


def rows():
    """Every vector of weights.txt: file, code, words."""
    for line in (programs.ROOT / "tests" / "vectors" / "weights.txt").read_text().splitlines():
        if line and line[0] not in "# ":
            yield (line.split(" | ") + ["", ""])[:3]


def some(kind, code, every):
    """A spread of the vectors (the unit test has all of them): builds cost time."""
    return [r for r in rows() if r[0].startswith(kind) and r[1] == code][::every]


@pytest.mark.parametrize("file,code,words", [*some("torch", "DENIED", 12), *some("torch", "FORMAT", 12), *some("torch", "LIMIT", 3),
                                             *some("torch", "UNSUPPORTED", 6), *some("safetensors", "FORMAT", 10)])
def test_what_the_worker_would_refuse_is_not_packed(author, tmp_path, file, code, words):
    name = "sub/w.safetensors" if file.startswith("safetensors") else "sub/w.pt"
    result = build(author, tmp_path, {name: (CORPUS / file).read_bytes()}, rc=code)
    assert name in result.json["message"] and words in result.json["message"], result
    assert not (tmp_path / "out.tgsp").exists()


def test_weights_are_told_by_content_too(author, tmp_path):
    hostile = mw.archive(b"\x80\x02" + mw.G("os", "system") + mw.T(mw.S("id")) + b"R.")
    result = build(author, tmp_path, {"readme.txt": hostile}, rc="DENIED")
    assert "readme.txt: data.pkl, offset 2: this file calls os.system: a model must not" in result.json["message"]


def test_a_damaged_archive_is_found(author, tmp_path):
    data = bytearray(mw.archive(mw.GOOD))
    data[data.index(mw.SIX) + 3] ^= 1
    result = build(author, tmp_path, {"w.pt": bytes(data)}, rc="FORMAT")
    assert "entry 'm/data/0' is damaged" in result.json["message"]


@pytest.mark.parametrize("file", [r[0] for r in rows() if r[1] == "OK"][::4])
def test_what_is_read_is_packed_as_it_is(author, tmp_path, file):
    data = (CORPUS / file).read_bytes()
    build(author, tmp_path, {"w." + file.split(".")[-1]: data})
    assert opened(author, tmp_path)["w." + file.split(".")[-1]] == data


# ---- ONNX and what it names ----

def external(offset=None, length=None, location="weights.bin", shape=(1,), kind=1):
    """A model whose one initializer lies in another file."""
    entries = b"".join(onnx_parts.blob(13, onnx_parts.blob(1, k) + onnx_parts.blob(2, str(v).encode())) for k, v in
                       ((b"location", location), (b"offset", offset), (b"length", length)) if v is not None)
    init = b"".join(b"\x08" + onnx_parts.varint(d) for d in shape) + b"\x10" + bytes([kind]) + onnx_parts.blob(8, b"w") \
        + entries + b"\x70\1"
    graph = onnx_parts.blob(2, b"g") + onnx_parts.blob(5, init)
    return bytes([0x08, 8]) + onnx_parts.blob(7, graph) + onnx_parts.blob(8, b"\x10\x11")


def test_external_data_must_be_there_and_in_bounds(author, tmp_path):
    good = [
        {"model.onnx": external(), "weights.bin": FOUR},
        {"net/model.onnx": external(location="a/w.bin"), "net/a/w.bin": FOUR},
        {"model.onnx": external(4, 8, shape=(2,)), "weights.bin": FOUR * 3},
        {"model.onnx": external(location="./weights.bin"), "weights.bin": FOUR},
    ]
    bad = [
        ({"model.onnx": external()}, "NOTFOUND", "'weights.bin', which is not in the package"),
        ({"net/model.onnx": external(), "weights.bin": FOUR}, "NOTFOUND", "net/model.onnx"),
        ({"net/model.onnx": external(location="../weights.bin"), "weights.bin": FOUR}, "NOTFOUND", "'../weights.bin'"),
        ({"model.onnx": external(location="/etc/passwd")}, "NOTFOUND", "'/etc/passwd'"),
        ({"model.onnx": external(), "weights.bin": FOUR[:3]}, "FORMAT", "bytes 0 to 4 of 'weights.bin' are asked for, which has 3"),
        ({"model.onnx": external(1), "weights.bin": FOUR}, "FORMAT", "bytes 1 to 5"),
        ({"model.onnx": external((1 << 64) - 2), "weights.bin": FOUR}, "FORMAT", "are asked for"),
        ({"model.onnx": external(0, 5), "weights.bin": FOUR * 2}, "FORMAT", "another length"),
        ({"model.onnx": external(shape=(1 << 40, 1 << 40)), "weights.bin": FOUR}, "FORMAT", "another length"),
        ({"model.onnx": external(kind=8), "weights.bin": FOUR}, "UNSUPPORTED", "ONNX type 8"),
    ]
    for i, files in enumerate(good):
        build(author, tmp_path / f"good{i}", files)
    for i, (files, code, words) in enumerate(bad):
        result = build(author, tmp_path / f"bad{i}", files, rc=code)
        assert words in result.json["message"] and "model.onnx" in result.json["message"], result


def test_weights_by_name_must_be_there(author, tmp_path):
    bare, tensors = onnx_parts.split(NET)
    declared, _ = onnx_parts.split(NET, location="w.safetensors")
    first = sorted(t[0] for t in tensors)[0]
    whole, fewer = mw.reference_layout(tensors), mw.reference_layout([t for t in tensors if t[0] != first])
    build(author, tmp_path / "a", {"model.onnx": declared, "w.safetensors": whole})
    build(author, tmp_path / "b", {"model.onnx": bare, "w.dat": whole}, "--metadata", "weights_file=w.dat")
    for i, (files, args, code, words) in enumerate([
        ({"model.onnx": declared}, (), "NOTFOUND", "'w.safetensors', which is not in the package"),
        ({"model.onnx": declared, "w.safetensors": fewer}, (), "NOTFOUND", f"'{first}' is not in it"),
        ({"model.onnx": bare}, ("--metadata", "weights_file=w.dat"), "NOTFOUND", "names 'w.dat'"),
        ({"model.onnx": bare, "w.dat": b"no"}, ("--metadata", "weights_file=w.dat"), "FORMAT", "w.dat: neither"),
    ]):
        result = build(author, tmp_path / str(i), files, *args, rc=code)
        assert words in result.json["message"], result


def test_a_model_that_no_worker_would_find_is_not_packed(author, tmp_path):
    """The rule is the worker's own (tests/e2e/test_moai_refuse.py): which file is run must be clear."""
    two = {"a.onnx": NET, "b.onnx": NET}
    for i, (files, args) in enumerate([
        (two, ("--metadata", "model_file=b.onnx")),
        ({**two, "model.onnx": NET}, ()),
        ({"net/A.ONNX": NET, "golden/model.onnx": NET}, ()),
        ({"net.bin": NET}, ("--metadata", "model_file=net.bin")),
        ({"readme.txt": b"x"}, ("--metadata", "model_file=nope.onnx")),  # not ONNX: nothing here is run by name
    ]):
        build(author, tmp_path / f"good{i}", files, *args)
    for i, (files, args, words) in enumerate([
        (two, (), "holds 2 .onnx files"),
        ({"net.bin": NET}, (), "holds no .onnx file"),
        ({"golden/model.onnx": NET}, (), "holds no .onnx file"),
        ({"model.onnx": NET}, ("--metadata", "model_file=nope.onnx"), "names 'nope.onnx', which is not in the package"),
        ({"net/model.onnx": NET}, ("--metadata", "model_file=model.onnx"), "names 'model.onnx', which is not in the package"),
        (two, ("--metadata", "model_file="), "names '', which is not in the package"),
        ({"model.onnx": NET, "labels.txt": b"zero\none\n"}, ("--metadata", "model_file=labels.txt"), "labels.txt: "),
    ]):
        result = build(author, tmp_path / f"bad{i}", files, *args, rc="FORMAT")
        assert words in result.json["message"], result
        assert "--metadata model_file=PATH" in result.json["message"] or "labels.txt" in words, result
        assert not (tmp_path / f"bad{i}" / "out.tgsp").exists()


# ---- --convert ----

@pytest.mark.parametrize("name", ["torch-state-dict", "torch-views", "torch-every-type", "torch-checkpoint"])
def test_convert_writes_what_the_reference_layout_asks_for(author, tmp_path, name):
    data = (CORPUS / "torch" / (name + ".pt")).read_bytes()
    files = {"w.pt": data, "sub/x.pth": data, "sub/bare": data, "zz.txt": b"as it is"}
    result = build(author, tmp_path, files, "--convert", "safetensors")
    assert result.json["converted"] == 3 and result.json["format"] == "safetensors"
    want = (CORPUS / "safetensors" / (name + ".safetensors")).read_bytes()
    got = opened(author, tmp_path)
    assert {k: v for k, v in got.items() if not k.startswith(".tensorguard")} == {
        "w.safetensors": want, "sub/x.safetensors": want, "sub/bare.safetensors": want, "zz.txt": b"as it is"}
    assert {k.decode(): v for k, v in pack.tree(tmp_path / "in").items()} == files, "the input is untouched"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "opened", "out.tgsp"], "nothing is left beside the package"


def test_convert_refuses_what_it_can_not_do(author, tmp_path):
    good = mw.archive(mw.GOOD)
    for i, (files, args, code, words) in enumerate([
        ({"w.pt": good}, ("--convert", "onnx"), "USAGE", "not safetensors"),
        ({"w.pt": good, "w.safetensors": mw.reference_layout([mw.W])}, ("--convert", "safetensors"), "FORMAT", "w.safetensors"),
        ({"w.pt": (CORPUS / "torch" / "torch-module").read_bytes()}, ("--convert", "safetensors"), "DENIED", "Sequential"),
    ]):
        result = build(author, tmp_path / str(i), files, *args, rc=code)
        assert words in result.json["message"], result
        assert not (tmp_path / str(i) / "out.tgsp").exists()


def test_a_converted_package_runs_and_answers_the_same(tmp_path):
    """From a PyTorch archive of matrices stored the other way round, by `build`, to a worker's answers."""
    kit("keys", "--dir", tmp_path)
    kit("rollback", "--out", tmp_path / "empty.rollback")
    bare, tensors = onnx_parts.split(NET)
    pairs, storages = [], {}
    for i, (name, kind, shape, raw) in enumerate(tensors):
        stride, step = [], 1
        for d in reversed(shape):
            stride.insert(0, step)
            step *= d
        if len(shape) == 2:
            rows_, columns = shape
            v = struct.unpack(f"<{rows_ * columns}I", raw)
            raw = struct.pack(f"<{rows_ * columns}I", *(v[r * columns + c] for c in range(columns) for r in range(rows_)))
            stride = [1, rows_]
        storages[str(i)] = raw
        pairs.append((name, mw.tensor(shape, stride, 0, mw.storage(str(i), "FloatStorage", len(raw) // 4))))
    golden = {"golden/" + p.name: p.read_bytes() for p in (EXAMPLE / "model_v1" / "golden").iterdir()}
    inside = folder(tmp_path / "inside", {"model.onnx": NET, **golden})
    named = folder(tmp_path / "named", {"model.onnx": bare, "w.pt": mw.archive(mw.state(*pairs), storages), **golden})
    answers = []
    for source, args in (inside, ()), (named, ("--convert", "safetensors", "--metadata", "weights_file=w.pt")):
        out = source.with_suffix(".tgsp")
        pack.run("build", "--input-dir", source, "--out", out, "--signing-key", tmp_path / "author.priv", "--model-name", MODEL,
                 "--recipient", tmp_path / "device.pub", *args)
        listener = Listener(source.parent)
        worker = Worker(tmp_path, out, listener).serve()
        shape, x, _ = heldout()
        status, _, body = worker.infer(json_request(shape, x))
        worker.stop()
        listener.close()
        assert status == 200, body
        answers.append(body)
    assert answers[0] == answers[1]
