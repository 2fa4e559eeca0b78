#!/usr/bin/python3
"""Adds up what the parts of a test run reported.

  tools/sum.py NAME:STATUS:KIND:PATH...

KIND meson takes a build folder, pytest a JUnit file; STATUS is the part's exit status, or "build-failed". Prints a
table, what was skipped and why, and as the last line "N passed, N failed", with ", N skipped" behind it if any were.
Exits 0 only if something ran and nothing failed. A part whose status says that it failed counts as a failure even if
its report names none: a crash leaves no report.
"""
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


class Counts:
    """Of a part: how many passed and failed, and what was skipped, as lines."""

    def __init__(self, passed=0, failed=0, skipped=()):
        self.passed, self.failed, self.skipped = passed, failed, list(skipped)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


def cases_of(xml):
    """The Counts of a JUnit tree's test cases."""
    found = Counts()
    for case in xml.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            found.failed += 1
        elif case.find("skipped") is not None:
            why = case.find("skipped").get("message")
            found.skipped.append(f"{case.get('classname') or ''} {case.get('name')}".strip() + (f": {why}" if why else ""))
        else:
            found.passed += 1
    return found


def count_pytest(path):
    return cases_of(ElementTree.parse(path)) if pathlib.Path(path).exists() else Counts()


def count_meson(folder):
    """Each TAP line is a test; an executable that failed without a failing line (a crash, a leak) is one more."""
    logs = pathlib.Path(folder) / "meson-logs"
    # Meson puts the name of a --wrap program into the names of its logs.
    listed = next((log for log in (logs / "testlog-tap.sh.json", logs / "testlog.json") if log.exists()), None)
    if listed is None:
        return Counts()
    suites = {}
    for suite in ElementTree.parse(listed.with_suffix(".junit.xml")).iter("testsuite"):
        for case in suite.iter("testcase"):
            name = case.get("classname") if suite.get("name") == case.get("classname") else case.get("name")
            suites.setdefault(name.split(".")[-1], ElementTree.Element("suite")).append(case)
    all_of_it = Counts()
    for line in listed.read_text().splitlines():
        test = json.loads(line)
        name = test["name"].split(" / ")[-1]
        found = cases_of(suites.pop(name, ElementTree.Element("suite")))
        if test["result"] not in ("OK", "SKIP", "EXPECTEDFAIL") and not found.failed:
            found.failed = 1
        all_of_it.add(found)
    return all_of_it


COUNT = {"meson": count_meson, "pytest": count_pytest}


def main(parts):
    total = Counts()
    print(f"\n{'part':<12}{'passed':>8}{'failed':>8}{'skipped':>9}")
    for part in parts:
        name, status, kind, path = part.split(":", 3)
        counts = COUNT[kind](path) if status != "build-failed" else Counts(failed=1)
        if status != "0" and not counts.failed:
            counts.failed = 1
        if status == "0" and not counts.passed:
            counts.failed += 1
        print(f"{name:<12}{counts.passed:>8}{counts.failed:>8}{len(counts.skipped):>9}")
        counts.skipped = [f"{name}: {case}" for case in counts.skipped]
        total.add(counts)
    if total.skipped:
        print("\nskipped:", *total.skipped, sep="\n  ")
    print(f"{total.passed} passed, {total.failed} failed" + (f", {len(total.skipped)} skipped" if total.skipped else ""))
    return 0 if total.passed and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
