#!/usr/bin/python3
"""Adds up what the parts of a test run reported.

  tools/sum.py NAME:STATUS:KIND:PATH...

KIND meson takes a build folder, pytest a JUnit file; STATUS is the part's exit status, or "build-failed". Prints a
table and, as the last line, "N passed, N failed". Exits 0 only if something ran and nothing failed. A part whose
status says that it failed counts as a failure even if its report names none: a crash leaves no report.
"""
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def cases_of(xml):
    """(passed, failed, skipped) over the test cases of a JUnit tree."""
    passed = failed = skipped = 0
    for case in xml.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def count_pytest(path):
    return cases_of(ElementTree.parse(path)) if pathlib.Path(path).exists() else (0, 0, 0)


def count_meson(folder):
    """Each TAP line is a test; an executable that failed without a failing line (a crash, a leak) is one more."""
    logs = pathlib.Path(folder) / "meson-logs"
    # Meson puts the name of a --wrap program into the names of its logs.
    listed = next((log for log in (logs / "testlog-tap.sh.json", logs / "testlog.json") if log.exists()), None)
    if listed is None:
        return 0, 0, 0
    suites = {}
    for suite in ElementTree.parse(listed.with_suffix(".junit.xml")).iter("testsuite"):
        for case in suite.iter("testcase"):
            name = case.get("classname") if suite.get("name") == case.get("classname") else case.get("name")
            suites.setdefault(name.split(".")[-1], ElementTree.Element("suite")).append(case)
    passed = failed = skipped = 0
    for line in listed.read_text().splitlines():
        test = json.loads(line)
        name = test["name"].split(" / ")[-1]
        found = cases_of(suites.pop(name, ElementTree.Element("suite")))
        if test["result"] not in ("OK", "SKIP", "EXPECTEDFAIL") and not found[1]:
            found = (found[0], 1, found[2])
        passed, failed, skipped = (a + b for a, b in zip((passed, failed, skipped), found))
    return passed, failed, skipped


COUNT = {"meson": count_meson, "pytest": count_pytest}


def main(parts):
    total = [0, 0, 0]
    print(f"\n{'part':<12}{'passed':>8}{'failed':>8}{'skipped':>9}")
    for part in parts:
        name, status, kind, path = part.split(":", 3)
        counts = list(COUNT[kind](path)) if status != "build-failed" else [0, 1, 0]
        if status != "0" and not counts[1]:
            counts[1] = 1
        if status == "0" and not counts[0]:
            counts[1] += 1
        print(f"{name:<12}{counts[0]:>8}{counts[1]:>8}{counts[2]:>9}")
        total = [a + b for a, b in zip(total, counts)]
    print(f"{total[0]} passed, {total[1]} failed")
    return 0 if total[0] and not total[1] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
