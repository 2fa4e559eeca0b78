"""make bench still runs: its shortest part, and what it writes. No figure is looked at."""
import json
import sys

import programs
import tg


def test_the_shortest_part_makes_a_table_and_files(tmp_path):
    out = tmp_path / "bench.json"
    done = tg.run(sys.executable, programs.ROOT / "tests" / "bench" / "run.py", "--only", "crypto", "--seconds", "0.3", "--out", out,
                  env={"TENSORGUARD_BUILD": str(programs.BUILD)})
    document = json.loads(out.read_text())
    assert document["failed"] == []
    names = [r["name"] for r in document["rows"]]
    assert {"hybrid sign", "hybrid verify", "hybrid encapsulate", "hybrid decapsulate"} <= set(names)
    assert all(r["ours"] > 0 and r["ratio"] > 0 for r in document["rows"])
    verify = next(r for r in document["rows"] if r["name"] == "hybrid verify")
    assert verify["mark"] == {"what": "ours", "relation": "<=", "bound": 600, "met": verify["ours"] <= 600}
    assert "ours <= 600:" in done.stdout
    assert [s["seed"] for s in document["seed"]] == [1.2, 210, 5.2, 45, 64]
    assert "founding document" in done.stdout and "hybrid verify" in done.stdout
    assert out.with_suffix(".svg").read_text().startswith("<svg ")
