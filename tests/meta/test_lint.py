"""The house rules hold, and the tool that says so can tell."""
import importlib.util
import subprocess
import sys

import pytest

import programs

_spec = importlib.util.spec_from_file_location("lint", programs.ROOT / "tools" / "lint.py")
lint = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lint)


def test_sources_keep_the_house_rules():
    done = subprocess.run([sys.executable, programs.ROOT / "tools" / "lint.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def rules(text, name="src/wire/x.c"):
    return sorted({rule for rule, *_ in lint.check_file(name, text)})


def function(lines, head="static void f(void)"):
    return head + "\n{\n" + "    ;\n" * (lines - 2) + "}\n"


@pytest.mark.parametrize("text,rule", [
    ("    p = malloc(4);\n", "alloc"),
    ("    free (p);\n", "alloc"),
    ("    if (memcmp(a, b, 4))\n", "compare"),
    ("    strcpy(a, b);\n", "string"),
    ("    n = atoi(s);\n", "number"),
    ("    system(s);\n", "process"),
    ("    exit(1);\n", "exit"),
    ('    q("SELECT x FROM y");\n', "sql"),
    ('    q("  INSERT OR IGNORE INTO y VALUES (1)");\n', "sql"),
    ("\tint x;\n", "space"),
    (function(61), "function"),
    (function(4, "int f(int a, int b, int c, int d, int e, int g)"), "parameters"),
    ("\n" * 601, "file"),
])
def test_an_offence_is_found(text, rule):
    assert rules(text) == [rule]


@pytest.mark.parametrize("text", [
    "    tg_free(p);\n",
    "    x->free(p);\n",
    "    /* malloc(4) */ // free(p)\n",
    '    say("malloc(4) and exit(1)");\n',
    '    say("please SELECT something");\n',
    function(60),
    function(4, "TG_RC f(int a, int b, int c, int (*d)(int, int), int e, struct tg_err *err)"),
    "\n" * 600,
])
def test_what_is_allowed_passes(text):
    assert rules(text) == []


def test_sql_and_allocation_have_their_homes():
    assert rules('    q("SELECT x FROM y");\n', "src/store/x.c") == []
    assert rules("    free(p);\n", "src/base/mem.c") == []


def test_an_exception_needs_a_reason():
    assert lint.read_exceptions("# x\nfile | src/a.c | file | because\n") == {("file", "src/a.c", "file"): 2}
    with pytest.raises(ValueError):
        lint.read_exceptions("file | src/a.c | file |\n")


def test_an_exception_nobody_needs_is_an_offence(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "tools").mkdir()
    (tmp_path / "src" / "a.c").write_text("    free(p);\n")
    exceptions = tmp_path / "tools" / "lint-exceptions.txt"
    exceptions.write_text("alloc | src/a.c | free | a reason\n")
    assert lint.lint(tmp_path) == []
    exceptions.write_text("alloc | src/a.c | free | a reason\nalloc | src/b.c | free | a reason\n")
    assert len(lint.lint(tmp_path)) == 1
