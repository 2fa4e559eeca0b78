"""A test run that failed cannot look like one that passed."""
import json
import subprocess
import sys

import programs

GOOD = '<testsuite name="p.a" ><testcase name="1 - x" classname="p.a"/><testcase name="2 - y" classname="p.a"/></testsuite>'
BAD = '<testsuite name="p.b"><testcase name="1 - x" classname="p.b"><failure/></testcase></testsuite>'


def run(*parts):
    done = subprocess.run([sys.executable, programs.ROOT / "tools" / "sum.py", *parts], capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()[-1]


def lines(*parts):
    return subprocess.run([sys.executable, programs.ROOT / "tools" / "sum.py", *parts], capture_output=True, text=True).stdout.splitlines()


def meson_folder(tmp_path, suites, results):
    logs = tmp_path / "meson-logs"
    logs.mkdir()
    (logs / "testlog.junit.xml").write_text(f"<testsuites>{suites}</testsuites>")
    (logs / "testlog.json").write_text("".join(json.dumps({"name": n, "result": r}) + "\n" for n, r in results))
    return tmp_path


def test_every_tap_line_counts(tmp_path):
    folder = meson_folder(tmp_path, GOOD, [("a", "OK")])
    assert run(f"unit:0:meson:{folder}") == (0, "2 passed, 0 failed")


def test_a_failed_line_counts_once(tmp_path):
    folder = meson_folder(tmp_path, GOOD + BAD, [("a", "OK"), ("b", "FAIL")])
    assert run(f"unit:1:meson:{folder}") == (1, "2 passed, 1 failed")


def test_a_crash_without_a_failed_line_counts(tmp_path):
    folder = meson_folder(tmp_path, GOOD, [("a", "ERROR")])
    assert run(f"unit:1:meson:{folder}") == (1, "2 passed, 1 failed")


def test_a_part_that_says_it_failed_counts_even_without_a_report(tmp_path):
    assert run(f"unit:2:meson:{tmp_path}") == (1, "0 passed, 1 failed")
    assert run(f"python:3:pytest:{tmp_path}/none.xml") == (1, "0 passed, 1 failed")
    assert run("unit:build-failed:meson:none") == (1, "0 passed, 1 failed")


def test_nothing_run_is_a_failure(tmp_path):
    (tmp_path / "e.xml").write_text("<testsuites/>")
    assert run(f"python:0:pytest:{tmp_path}/e.xml")[0] == 1
    assert run()[0] == 1


def test_skipped_is_not_passed(tmp_path):
    (tmp_path / "s.xml").write_text('<testsuites><testsuite><testcase name="a"/><testcase name="b"><skipped/></testcase>'
                                    '<testcase name="c"><error/></testcase></testsuite></testsuites>')
    assert run(f"python:1:pytest:{tmp_path}/s.xml") == (1, "1 passed, 1 failed, 1 skipped")


def test_skipped_is_named(tmp_path):
    """Which, and why, right before the last line; from both kinds of report."""
    (tmp_path / "s.xml").write_text('<testsuites><testsuite><testcase name="a" classname="t.m"/><testcase name="b" classname="t.m">'
                                    '<skipped message="needs root"/></testcase></testsuite></testsuites>')
    suite = GOOD.replace('name="2 - y" classname="p.a"/>', 'name="2 - y" classname="p.a"><skipped/></testcase>')
    folder = meson_folder(tmp_path, suite, [("a", "OK")])
    assert lines(f"unit:0:meson:{folder}", f"python:0:pytest:{tmp_path}/s.xml")[-4:] == [
        "skipped:", "  unit: p.a 2 - y", "  python: t.m b: needs root", "2 passed, 0 failed, 2 skipped"]


def test_logs_of_wrapped_programs_are_found(tmp_path):
    logs = meson_folder(tmp_path, GOOD, [("a", "OK")]) / "meson-logs"
    for log in list(logs.iterdir()):
        log.rename(logs / log.name.replace("testlog", "testlog-tap.sh"))
    assert run(f"unit:0:meson:{tmp_path}") == (0, "2 passed, 0 failed")
