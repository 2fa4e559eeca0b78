"""The sealed bake: the second start reads it; whatever is wrong with it, the model is baked anew."""
import pytest

import programs
from moai_launcher import EXAMPLE, MODEL, Listener, Worker, kit, npy_load

V1 = EXAMPLE / "model_v1"
HEAD = 92  # docs/agent.md; src/moai/bake_seal.h


class Bench:
    """One device with one package, its answer, and its sealed bake."""

    def __init__(self, d):
        self.dir = d
        kit("keys", "--dir", d)
        kit("rollback", "--out", d / "empty.rollback")
        self.package = d / "v1.tgsp"
        kit("package", "--dir", d, "--out", self.package, "--input", V1, "--model", MODEL)
        self.sealed = d / "first.bake"
        self.answer, self.said = self.start(bake_out=self.sealed)

    def start(self, package=None, **how):
        """(the model's answer, the states of moai.bake in the log)"""
        listener = Listener(self.dir)
        worker = Worker(self.dir, package or self.package, listener, **how)
        try:
            worker.serve()
            _, shape, data = npy_load(EXAMPLE / "heldout" / "images.npy")
            size = shape[1] * shape[2] * shape[3]
            status, _, body = worker.infer({"inputs": [{"name": "input", "shape": [1, *shape[1:]], "datatype": "FP32",
                                                        "data": list(data[:size])}]})
            assert status == 200, body
        finally:
            worker.stop()
            listener.close()
            (self.dir / "predict.sock").unlink()
        return body, [w[6:] for line in worker.log().splitlines() if "moai.bake" in line
                      for w in line.split() if w.startswith("state=")]

    def again(self, data, package=None, **how):
        """Start with these bytes as the bake: (answer, states, the new bake)."""
        given, made = self.dir / "given.bake", self.dir / "made.bake"
        given.write_bytes(data)
        answer, said = self.start(package, bake_in=given, bake_out=made, **how)
        return answer, said, made.read_bytes()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    b = Bench(tmp_path_factory.mktemp("bake"))
    if b.said == ["none"] and not programs.sanitized():
        pytest.skip("this kernel has no Landlock, so nothing is baked")
    return b


def test_the_first_start_seals_and_the_second_reads(bench):
    assert bench.said == ["sealed"]
    data = bench.sealed.read_bytes()
    model = (V1 / "model.onnx").read_bytes()
    assert len(data) > len(model) // 2
    for at in range(len(model) // 4, len(model) - 64, 997):  # weights, not zeros
        if len(set(model[at:at + 32])) > 8:
            assert model[at:at + 32] not in data
    answer, said, made = bench.again(data)
    assert (said, made) == (["opened"], b"")
    assert answer == bench.answer


def test_two_bakes_of_one_model_have_nothing_in_common(bench):
    _, said, made = bench.again(b"")
    one = bench.sealed.read_bytes()
    assert said == ["refused", "sealed"] and len(made) == len(one)
    blocks = {one[i:i + 16] for i in range(HEAD, len(one), 16)}
    assert not blocks & {made[i:i + 16] for i in range(HEAD, len(made), 16)}


def test_a_changed_bake_is_made_anew(bench):
    data = bench.sealed.read_bytes()
    for at in (0, 7, 8, 9, 12, 43, 44, 75, 76, 80, 83, 84, 91, HEAD, len(data) // 2, len(data) - 1):
        answer, said, made = bench.again(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        assert said == ["refused", "sealed"], (at, said)
        assert answer == bench.answer
        assert bench.again(made)[1] == ["opened"]


def test_a_cut_or_longer_bake_is_made_anew(bench):
    data = bench.sealed.read_bytes()
    for bad in (b"", data[:1], data[:HEAD - 1], data[:HEAD], data[:HEAD + 20], data[:-1], data[:-16], data + b"\0", b"\0" * 200):
        answer, said, made = bench.again(bad)
        assert said == ["refused", "sealed"], (len(bad), said)
        assert answer == bench.answer and made


def test_another_device_or_package_cannot_use_it(bench, tmp_path_factory):
    other = Bench(tmp_path_factory.mktemp("other"))
    answer, said, _ = other.again(bench.sealed.read_bytes())
    assert said == ["refused", "sealed"] and answer == bench.answer
    package = bench.dir / "v2.tgsp"
    kit("package", "--dir", bench.dir, "--out", package, "--input", EXAMPLE / "model_v2", "--model", MODEL)
    answer, said, _ = bench.again(bench.sealed.read_bytes(), package)
    assert said == ["refused", "sealed"] and answer != bench.answer


def test_a_full_disk_costs_the_bake_only(bench):
    answer, said = bench.start(bake_out="/dev/full")
    assert said == ["unsealed"] and answer == bench.answer


def test_the_package_is_still_verified(bench):
    """A good bake does not replace the signature, and the golden files are read from the package."""
    data = bench.package.read_bytes()
    bad = bench.dir / "bad.tgsp"
    bad.write_bytes(data[:3000] + bytes([data[3000] ^ 1]) + data[3001:])
    code, _, _ = Worker(bench.dir, bad, bake_in=bench.sealed).failed()
    assert code in ("AUTH", "FORMAT")
