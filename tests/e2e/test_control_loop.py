"""The picture of a 1 kHz loop over a change of versions (tests/bench/control_loop.py), drawn of one second."""
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

import programs

DRAW = programs.ROOT / "tests" / "bench" / "control_loop.py"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.skipif(programs.sanitized(), reason="a benchmark's picture")
@pytest.mark.parametrize("spin", [0, 3000], ids=["sleeping", "spinning"])
def test_the_picture_shows_the_loop_before_during_and_after_a_swap(tmp_path, spin):
    out = tmp_path / "loop.svg"
    done = subprocess.run([sys.executable, DRAW, "--seconds", "2", "--spin", str(spin), "--out", out], capture_output=True, text=True,
                          timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures == json.loads(done.stdout)
    for part in (figures["without"], *(figures["with"][when] for when in ("before", "during", "after"))):
        assert part["turns"] > 0 and 0 < part["p50_us"] <= part["p99_us"] <= part["max_us"], figures
    assert figures["with"]["all"]["turns"] == sum(figures["with"][when]["turns"] for when in ("before", "during", "after"))
    assert figures["turns_failed"] == 0
    picture = ElementTree.parse(out)
    words = [text.text for text in picture.iter(SVG + "text")]
    assert "20 µs" in words and "one period" in words and any("new version" in word for word in words), words
    assert sum(path.get("d").count("M") for path in picture.iter(SVG + "path")) > 100
