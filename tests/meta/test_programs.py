"""Every program that the tests call comes with what `make deps` brings, or with Debian itself: a fresh machine has no other."""
import ast
import os
import pathlib
import re
import subprocess

import pytest

import programs

# Of Debian's essential or required packages (bash, coreutils, diffutils, findutils, libc-bin, mount), and of what gcc needs itself.
SYSTEM = {"bash", "cmp", "cp", "find", "ldd", "mount", "nm", "sh", "sync", "umount"}
BROUGHT_ALONG = {"age": {"age-keygen"}}  # by the package of another program
# What runs from where: the groups of tools/deps.sh that were brought, and what is left out, saying so, where it is missing.
FOLDERS = [("tests/meta", ("build", "test"), {"apt-get", "dpkg", "git"}), ("tests/e2e", ("build", "test"), {"age", "age-keygen"}),
           ("tests/bench", ("build", "test", "bench"), {"chrt"}), ("examples", ("build", "test"), set())]
CALLS = {"subprocess.run", "subprocess.Popen", "tg.run", "m.run", "shutil.which"}
WORD = re.compile(r"[a-z/][\w./+-]*")


def word(node):
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def called(node):
    """The program that a call names as its first argument or first word, or a list that reads like a command line: None, or a word."""
    if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in CALLS:
        first = node.args[0]
        return word(first.elts[0] if isinstance(first, (ast.List, ast.Tuple)) and first.elts else first)
    if isinstance(node, ast.List) and len(node.elts) > 1 and any(re.match(r"-\w", word(e) or "") for e in node.elts[1:]):
        return word(node.elts[0])
    return None


def calls(text):
    return {os.path.basename(w) for w in map(called, ast.walk(ast.parse(text))) if w and WORD.fullmatch(w)}


def declared(groups):
    tables = "".join(f"$needs_{g}\n" for g in groups)
    done = subprocess.run(["bash", "-c", f'source {programs.ROOT}/tools/deps.sh; printf %s "{tables}"'], check=True,
                          capture_output=True, text=True)
    found = set(re.findall(r"^cmd:(\S+)", done.stdout, re.M))
    return found.union(*(BROUGHT_ALONG.get(name, ()) for name in found))


def test_the_calls_are_seen():
    text = """
subprocess.run(["one", "x"])
tg.run("two", a)
for compiler in (["three", "-c"], [f, "-c"]): pass
w = Worker(before=["four", "-f"])
shutil.which("/usr/bin/five")
subprocess.run([six, "-n"])
run("seven", "-x")
"""
    assert calls(text) == {"one", "two", "three", "four", "five"}


@pytest.mark.parametrize("folder,groups,optional", FOLDERS)
def test_every_program_is_brought_by_deps(folder, groups, optional):
    there = declared(groups) | SYSTEM | optional
    files = sorted(pathlib.Path(programs.ROOT / folder).rglob("*.py"))
    assert files
    missing = [f"{path.relative_to(programs.ROOT)} calls {name}" for path in files for name in sorted(calls(path.read_text()) - there)]
    assert not missing, "tools/deps.sh (needs_test) brings none of these:\n" + "\n".join(missing)
