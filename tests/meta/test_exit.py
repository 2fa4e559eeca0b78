"""Exit statuses are said in three places, which agree: docs/cli.md, the table of src/base/err.c, and tests/e2e/pack.py."""
import ast
import re

import programs


def documented(text):
    """{name: status} of the table in docs/cli.md; the row without a name is OK."""
    section = text.split("## Exit status", 1)[1].split("\n## ", 1)[0]
    found = {}
    for status, names in re.findall(r"^\| (\d+) \| ([A-Z, ]*)\|", section, re.M):
        for name in names.replace(" ", "").split(",") if names.strip() else ["OK"]:
            assert name not in found, f"{name} stands in docs/cli.md twice"
            found[name] = int(status)
    return found


def coded(text):
    """{name: status} of rc_table; the enumerator of each row is its name."""
    rows = re.findall(r'\[TG_(?:E_)?([A-Z]+)\] = \{"([A-Z]+)",\s*"[^"]*",\s*(\d+),', text)
    assert all(enumerator == name for enumerator, name, _ in rows), rows
    return {name: int(status) for _, name, status in rows}


def in_tests(text):
    """EXIT of pack.py, without running it."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXIT":
            return ast.literal_eval(node.value)
    return {}


def read(*path):
    return programs.ROOT.joinpath(*path).read_text()


def test_the_three_tables_agree():
    code = coded(read("src", "base", "err.c"))
    codes = re.findall(r"^    TG_(?:E_)?([A-Z]+)(?: = 0)?,", read("src", "base", "err.h"), re.M)
    assert len(codes) > 15 and set(code) == set(codes)
    assert documented(read("docs", "cli.md")) == code
    assert in_tests(read("tests", "e2e", "pack.py")) == code


def test_a_difference_is_seen():
    table = read("docs", "cli.md")
    assert documented(table.replace("| 5 | AUTH |", "| 6 | AUTH |")) != documented(table)
    source = read("src", "base", "err.c")
    assert coded(re.sub(r'("not authentic",\s*)5', r"\g<1>6", source)) != coded(source)
