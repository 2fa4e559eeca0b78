"""make bench still runs, with small sizes: each part has its rows and marks, and what answers the founding table. No figure is judged."""
import argparse
import importlib.util
import json
import os
import shutil
import sys

import pytest

import programs
import tg

sys.path.append(str(programs.ROOT / "tests" / "bench"))
import marks as table  # noqa: E402

RUN = programs.ROOT / "tests" / "bench" / "run.py"
AGE = shutil.which("age") and shutil.which("age-keygen")
SUITES = ("verify + decrypt to memory, ChaCha20-Poly1305", "verify + decrypt to memory, AES-256-GCM")
# The rows a part has at least, besides those that have marks; of figures beside age's, what is beside them may be missing.
STREAMED = [f"streamed load, 8 MiB over {way}: offer to healthy" for way in ("loopback TLS", "TLS through at most 400 Mbit/s")]
ROWS = {
    "crypto": {"hybrid sign", "hybrid verify", "hybrid encapsulate", "hybrid decapsulate"},
    "container": {"build 8 MiB", "build 8 MiB, both on disk", "build 8 MiB, AES-256-GCM", "build 8 MiB / hash", "verify + open, 1 file",
                  "verify + open, both on disk", "verify + open, AES-256-GCM", "verify + open / hash", "verify alone",
                  "build, processor time", "verify + open, processor time", "build, peak memory", "verify + open, peak memory", "chunk digest",
                  *(s + what for s in SUITES for what in ("", " / limit", " / limit, processor time", ", fresh pages"))},
    "platform": {*(f"{what}, {n}" for n in ("1 device", "8 devices at once", "32 devices at once")
                   for what in ("check-ins", "check-in p50", "check-in p99", "check-in, platform's processor time")),
                 "mTLS handshake, 32 devices at once", "platform: peak RSS while 8 MiB is uploaded",
                 "platform: peak RSS while 8 MiB is downloaded", "platform: RSS at rest", "publish 8 MiB"},
    "device": {*STREAMED, "streamed load, 1 MiB: last byte to healthy", "agent: start to ready, model cached", "agent: idle PSS",
               "worker: idle PSS", "agent + worker: idle PSS", "inference p50", "inference p99"},
    "native": {f"native call, worker {kind}: {p}" for kind in ("sleeping (futex)", "spinning") for p in ("p50", "p99")} |
              {"native call, worker spinning: p99 over the bare median"},
    "protect": {f"agent: start to ready, 7 MB model cached ({level})" for level in table.levels()},
    "bake": {f"{shape}: {what}" for shape in ("ResNet-18", "ViT-B/16")
             for what in ("load from sealed bake, after decryption", "decrypt the sealed bake")},
}
BESIDE_AGE = {"build 8 MiB", "build 8 MiB, both on disk", "build 8 MiB, AES-256-GCM", "verify + open, 1 file",
              "verify + open, both on disk", "verify + open, AES-256-GCM", "build, processor time", "verify + open, processor time",
              "build, peak memory", "verify + open, peak memory", *SUITES, *(f"{s}, fresh pages" for s in SUITES)}


# What was set out, by part: relation and bound of each kind of mark. The table (marks.py) may say it of more rows, never of none.
BOUNDS = {("container", ">=", 2.5), ("container", ">=", 3.5), ("container", ">=", 0.85), ("container", ">=", 1.8), ("container", ">=", 1.7),
          ("crypto", "<=", 600), ("device", "<=", 1.1), ("device", "<=", 1.5), ("device", "<=", 12),
          ("native", "<=", 1.3), ("native", "<=", 20), ("native", "<=", 50),
          ("protect", "<=", 1.05), ("protect", "<=", 0.5), ("protect", "<=", 0.8),
          ("bake", "<=", 25), ("bake", "<=", 1.3), ("bake", "<=", 1.05)}
# Of a run with --quick.
ARGS = argparse.Namespace(size=8, rounds=1, seconds=0.2, quick=True, without_age=not AGE)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """bench(part): what run.py wrote and printed of it, measured once."""
    done = {}

    def once(part):
        if part not in done:
            out = tmp_path_factory.mktemp("bench") / "bench.json"
            words = [] if AGE else ["--without-age"]
            ran = tg.run(sys.executable, RUN, "--only", part, "--quick", "--out", out, *words,
                         env={"TENSORGUARD_BUILD": str(programs.BUILD)}, timeout=300, ok=None)
            assert ran.returncode == 0, ran.stdout + ran.stderr
            done[part] = json.loads(out.read_text()), ran.stdout, out
        return done[part]
    return once


@pytest.mark.parametrize("part", ROWS)
def test_a_part_has_its_rows_and_marks(bench, part):
    if programs.sanitized() and part != "crypto":
        pytest.skip("figures of a sanitized build say nothing, and take long")
    if part == "device" and os.geteuid() != 0:
        pytest.skip("only root may read how much memory a worker has")
    document, shown, _ = bench(part)
    have = table.here(ARGS)
    due = {mark.row: mark for mark in table.every(ARGS) if mark.part == part and not any(have[need] for need in mark.needs)}
    assert document["failed"] == []
    rows = {r["name"]: r for r in document["rows"]}
    assert len(rows) == len(document["rows"]) and ROWS[part] | set(due) <= set(rows), (ROWS[part] | set(due)) - set(rows)
    assert all(r["ours"] > 0 for r in rows.values())
    missing = {name for name, r in rows.items() if r["instead"] and not r["ratio"]}
    assert missing == (set() if AGE or part != "container" else BESIDE_AGE)
    assert {name for name, r in rows.items() if r["mark"]} == set(due)
    for name, (_, _, what, relation, bound, _) in due.items():
        row, mark = rows[name], rows[name]["mark"]
        assert (mark["what"], mark["relation"], mark["bound"]) == (what, relation, bound)
        assert row["instead"] and row["ratio"] == row["ours"] / row["alternative"] and row["difference"] == row["ours"] - row["alternative"]
        assert mark["met"] == (row[what] <= bound if relation == "<=" else row[what] >= bound)
        assert f"{what} {relation} {bound:g}: {'met' if mark['met'] else 'NOT met'}" in shown


@pytest.mark.parametrize("part", ROWS)
def test_every_mark_is_accounted_for(bench, part):
    """Whatever was run and whatever the machine has: the file has all marks, the table says of which nothing is known, and why."""
    if programs.sanitized() and part != "crypto" or part == "device" and os.geteuid() != 0:
        pytest.skip("as above")
    document, shown, _ = bench(part)
    have, marks = table.here(ARGS), table.every(ARGS)
    assert [(k["part"], k["row"]) for k in document["marks"]] == [(mark.part, mark.row) for mark in marks]
    for mark, told in zip(marks, document["marks"]):
        lacking = next((have[need] for need in mark.needs if have[need]), None)
        if mark.part != part:
            assert told["state"] == "left out" and f"  {mark.part}: " in shown
        elif lacking:
            assert (told["state"], told["why"]) == ("not measured here", lacking)
            assert f"{mark.row}, {mark.what} {mark.relation} {mark.bound:g}: not measured here: {lacking}" in shown
        else:
            assert told["state"] in ("met", "NOT met") and told["why"] is None


@pytest.mark.skipif(not AGE, reason="age is not here (make bench brings it): the columns beside ours were left empty")
def test_age_is_measured_beside_ours(bench):
    if programs.sanitized():
        pytest.skip("figures of a sanitized build say nothing, and take long")
    rows = {r["name"]: r for r in bench("container")[0]["rows"]}
    assert all("age" in rows[name]["instead"] and rows[name]["ratio"] > 0 for name in BESIDE_AGE)


def test_the_table_and_the_files(bench):
    document, shown, out = bench("crypto")
    assert [s["seed"] for s in document["seed"]] == [1.2, 210, 5.2, 45, 64]
    assert [s["row"] for s in document["seed"] if s["ours"] is not None] == ["hybrid verify"]
    assert "founding document" in shown and "hybrid verify" in shown
    assert out.with_suffix(".svg").read_text().startswith("<svg ")


@pytest.fixture
def run(monkeypatch):
    """run.py as a module."""
    spec = importlib.util.spec_from_file_location("bench_run", RUN)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(module)
    return module


def test_a_row_of_the_founding_table_that_nothing_answers_is_a_failure(run, tmp_path, monkeypatch, capsys):
    """A part that no longer has the row it owes: the run fails and says which."""
    other = [(*row[:3], "a row of another name", row[4]) if row[3] == "hybrid verify" else row for row in run.SEED]
    monkeypatch.setattr(run, "SEED", other)
    out = tmp_path / "bench.json"
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "crypto", "--seconds", "0.2", "--out", str(out)])
    assert run.main() == 1
    assert json.loads(out.read_text())["failed"] == ["no row 'a row of another name' (crypto)"]
    assert "FAILED: no row 'a row of another name' (crypto)" in capsys.readouterr().out
    assert {row[4] for row in run.SEED} <= set(run.PARTS) and set(ROWS) <= set(run.PARTS)
    assert all(name in ROWS[part] for _, _, _, name, part in run.SEED if name != "a row of another name")


def test_a_mark_that_nothing_answers_is_a_failure(run, tmp_path, monkeypatch, capsys):
    """A part that no longer has a row with a mark: the run fails and says which, however much else it has."""
    gone = table.Mark("crypto", "a row that is gone", "ratio", "<=", 2)
    every = table.every
    monkeypatch.setattr(run.table_of_marks, "every", lambda args: [*every(args), gone])
    out = tmp_path / "bench.json"
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "crypto", "--quick", "--out", str(out)])
    assert run.main() == 1
    document, shown = json.loads(out.read_text()), capsys.readouterr().out
    assert document["failed"] == ["no mark at 'a row that is gone' (crypto): no such row"]
    assert document["marks"][-1]["state"] == "unanswered"
    assert "1 unanswered" in shown and "a row that is gone, ratio <= 2: unanswered: no such row" in shown


def test_the_table_of_marks_is_whole(run):
    for quick in (ARGS, argparse.Namespace(size=1024, quick=False, without_age=False)):
        marks = table.every(quick)
        assert {(mark.part, mark.relation, mark.bound) for mark in marks} == BOUNDS
        assert len({mark.row for mark in marks}) == len(marks) and {mark.part for mark in marks} <= set(run.PARTS) == set(ROWS)
        assert {need for mark in marks for need in mark.needs} == set(table.here(quick))


def test_no_mark_can_vanish(run):
    """Each row in turn is not there, or without its figure, or of a part that broke; each thing in turn is not on the machine."""
    marks, have = table.every(ARGS), dict.fromkeys(table.here(ARGS))
    full = {mark.row: {"ours": 1.0, "ratio": 1.0, "difference": 0.0} for mark in marks}
    parts = set(run.PARTS)

    def states(rows, failed=(), lack=have):
        return {k["row"]: (k["state"], k["why"]) for k in table.held(marks, rows, parts, failed, lack)}
    assert {state for state, _ in states(full).values()} == {"met", "NOT met"}
    for mark in marks:
        without = {name: row for name, row in full.items() if name != mark.row}
        assert states(without) == {**states(full), mark.row: ("unanswered", "no such row")}
        assert states({**without, mark.row: {**full[mark.row], mark.what: None}})[mark.row] == ("unanswered", f"its row has no {mark.what}")
        assert states(without, [mark.part])[mark.row] == ("unanswered", f"part '{mark.part}' failed")
    for need in have:
        got = states(full, lack={**have, need: f"no {need}"})
        assert {name for name, state in got.items() if state == ("not measured here", f"no {need}")} == \
               {mark.row for mark in marks if need in mark.needs} != set()


def test_what_a_mark_needs_is_asked_of_the_machine(run, tmp_path, monkeypatch):
    """A processor with AVX-512 whose chunks are hashed by libcrypto all the same: the mark is there, and not met."""
    cpuinfo = tmp_path / "cpuinfo"
    every = " ".join(sorted(table.AVX512))
    cpuinfo.write_text(f"processor : 0\nflags\t\t: fpu {every}\n\nprocessor : 1\nflags\t\t: {every} sse2\n")
    flags = table.cpu_flags(cpuinfo)
    assert flags == table.AVX512
    marks = table.every(ARGS)
    for seen, met in ((flags, False), (flags - {"avx512bw"}, None)):
        monkeypatch.setattr(table, "cpu_flags", lambda seen=seen: seen)
        results = run.Results(marks, table.here(ARGS))
        results.add("chunk digest", 1.0, "GB/s", 1.0, "libcrypto's SHA-256 (ours: libcrypto)")
        assert (results.rows[0]["mark"] or {"met": None})["met"] == met
    assert table.here(ARGS)["avx512"] == "no AVX-512 (the processor has no avx512bw)"
    with pytest.raises(ValueError):
        results.add("chunk digest", 1.0, "GB/s")
