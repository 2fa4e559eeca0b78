#!/usr/bin/python3
"""House rules that a compiler does not check, over src/**/*.[ch].

  tools/lint.py [--root DIR]      prints one line per offence, exits 1 if there is any

Exceptions live in tools/lint-exceptions.txt, each with its reason; one that is no longer needed is an offence too.
"""
import argparse
import pathlib
import re
import sys

MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 600, 60, 5

# rule name -> (calls, folders and files where they are at home, what to use instead)
BANNED = {
    "alloc": (r"malloc|calloc|realloc|reallocarray|free|strdup|strndup|asprintf|vasprintf|aligned_alloc|posix_memalign",
              ("src/base/mem.c", "src/moai/heap.c"), "tg_alloc, tg_free and friends (base/mem.h)"),
    "compare": (r"memcmp|bcmp", ("src/base/bytes.c",), "tg_mem_eq or tg_bytes_eq (base/bytes.h), tg_ct_eq for secrets"),
    "string": (r"strcpy|strcat|strncpy|strncat|sprintf|vsprintf|gets|strtok|alloca", (), "tg_buf or snprintf"),
    "number": (r"strtol|strtoul|strtoll|strtoull|strtoumax|strtoimax|strtod|strtof|atoi|atol|atoll|atof|sscanf|fscanf|scanf",
               (), "tg_parse_* (codec/text.h)"),
    "process": (r"system|popen|wordexp", (), "no shell, ever"),
    "exit": (r"exit|_exit|abort|quick_exit|_Exit", (), "return a tg_rc; only a main exits"),
    "random": (r"rand|srand|random|srandom|drand48|rand_r", (), "crypto/random.h"),
    "temporary": (r"tmpnam|tempnam|mktemp", (), "base/file.h"),
}
SQL = re.compile(r'"\s*(SELECT\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|CREATE\s+(TABLE|INDEX|UNIQUE)'
                 r'|DROP\s+TABLE|ALTER\s+TABLE|PRAGMA\s)')
SQL_HOME = "src/store/"


def blank(text, keep_strings):
    """The text with comments (and strings, unless kept) turned to spaces; line structure stays."""
    def wipe(match):
        token = match[0]
        if token[0] == "/" or not keep_strings:
            return re.sub(r"[^\n]", " ", token)
        return token
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', wipe, text, flags=re.S)


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def parameters(head):
    """How many parameters the function whose head (up to its brace) this is takes, its tg_err aside."""
    depth, last_open, spans = 0, 0, []
    for i, c in enumerate(head):
        if c == "(":
            if depth == 0:
                last_open = i
            depth += 1
        elif c == ")":
            depth -= 1
            if depth == 0:
                spans.append(head[last_open + 1:i])
    if not spans:
        return 0
    inner = re.sub(r"\([^()]*\)", "", re.sub(r",\s*struct tg_err \*\w+\s*$", "", spans[-1]))
    return 0 if inner.strip() in ("", "void") else inner.count(",") + 1


def functions(code):
    """(name, first line, lines, parameters) of each function: bodies start and end in column 0."""
    for body in re.finditer(r"^\{\n.*?^\}", code, re.M | re.S):
        before = code[:body.start()].rstrip("\n")
        head = re.split(r"\n\s*\n|;\s*\n|^\}.*\n|^#.*\n", before, flags=re.M)[-1]
        name = re.search(r"(\w+)\s*\(", re.sub(r"__attribute__\s*\(\(.*?\)\)", "", head))
        if name and "=" not in head:
            yield name[1], line_of(code, body.start()), body[0].count("\n") + 1, parameters(head)


def check_file(name, text):
    """Yields (rule, key, line, message) for one file; key is what an exception names."""
    code, with_strings = blank(text, False), blank(text, True)
    for rule, (calls, homes, instead) in BANNED.items():
        if name.startswith(homes) if homes else False:
            continue
        for hit in re.finditer(rf"(?<![\w.>])({calls})\s*\(", code):
            yield rule, hit[1], line_of(code, hit.start()), f"{hit[1]}() is not used here: {instead}"
    if not name.startswith(SQL_HOME):
        for hit in SQL.finditer(with_strings):
            yield "sql", "sql", line_of(with_strings, hit.start()), "SQL stands only in src/store"
    if name.endswith(".c"):
        for function, line, length, count in functions(code):
            if length > MAX_FUNCTION:
                yield "function", function, line, f"{function} has {length} lines, {MAX_FUNCTION} are allowed"
            if count > MAX_PARAMETERS:
                yield "parameters", function, line, f"{function} takes {count} parameters, {MAX_PARAMETERS} and a tg_err are allowed"
    lines = text.count("\n")
    if lines > MAX_FILE:
        yield "file", "file", lines, f"{lines} lines, {MAX_FILE} are allowed"
    for number, line in enumerate(text.split("\n"), 1):
        if "\t" in line or line != line.rstrip():
            yield "space", "space", number, "tab or trailing space"


def read_exceptions(text):
    """rule | path | name | reason  ->  {(rule, path, name): line number}; a missing reason is an error."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 4 or not all(fields):
            raise ValueError(f"tools/lint-exceptions.txt:{number}: rule | path | name | reason, all four")
        found[tuple(fields[:3])] = number
    return found


def lint(root):
    exceptions_file = root / "tools" / "lint-exceptions.txt"
    exceptions = read_exceptions(exceptions_file.read_text() if exceptions_file.exists() else "")
    used, offences = set(), []
    for path in sorted((root / "src").rglob("*")):
        if path.suffix not in (".c", ".h"):
            continue
        name = str(path.relative_to(root))
        for rule, key, line, message in check_file(name, path.read_text()):
            if (rule, name, key) in exceptions:
                used.add((rule, name, key))
            else:
                offences.append(f"{name}:{line}: {rule}: {message}")
    for exception, number in exceptions.items():
        if exception not in used:
            offences.append(f"tools/lint-exceptions.txt:{number}: no longer needed: {' | '.join(exception)}")
    return offences


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    offences = lint(parser.parse_args().root)
    print("\n".join(offences) if offences else "lint: nothing to say")
    sys.exit(1 if offences else 0)


if __name__ == "__main__":
    main()
