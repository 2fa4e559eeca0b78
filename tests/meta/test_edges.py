"""Includes go only where tests/meta/edges.txt and docs/architecture.md allow."""
import pathlib
import re

import pytest

import programs

SRC = programs.ROOT / "src"
EDGES_FILE = pathlib.Path(__file__).with_name("edges.txt")
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<][^">]+[">])', re.M)


def read_edges(text):
    folders, libraries = {}, {}
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith("<"):
            libraries[words[0]] = set(words[1:])
        else:
            folders[words[0].rstrip(":")] = set(words[1:])
    return folders, libraries


FOLDERS, LIBRARIES = read_edges(EDGES_FILE.read_text())


def offences(folder, name, text, folders=None, libraries=None):
    """What is wrong with the includes of one file, as sentences."""
    folders, libraries = folders or FOLDERS, libraries or LIBRARIES
    found = []
    for include in INCLUDE.findall(text):
        if include.startswith('"'):
            target = include.strip('"').split("/")[0]
            if "/" not in include:
                found.append(f'{name}: {include} should be written "{folder}/…"')
            elif target != folder and target not in folders[folder]:
                found.append(f"{name}: {folder} may not include {include}")
        else:
            for prefix, allowed in libraries.items():
                if include.startswith(prefix) and folder not in allowed:
                    found.append(f"{name}: {folder} may not include {include}")
    return found


def sources():
    return sorted(p for p in SRC.rglob("*") if p.suffix in (".c", ".h"))


def test_sources_keep_to_the_edges():
    found = []
    for path in sources():
        folder = path.relative_to(SRC).parts[0]
        assert folder in FOLDERS, f"src/{folder} is not in edges.txt"
        found += offences(folder, str(path.relative_to(programs.ROOT)), path.read_text())
    assert len(sources()) > 50, "the sources were not found"
    assert not found, "\n".join(found)


def test_edges_point_down_only():
    seen = set()
    for folder, uses in FOLDERS.items():
        assert uses <= seen, f"{folder} uses {uses - seen}, which stands below it in the table"
        seen.add(folder)


def test_architecture_md_says_the_same():
    text = (programs.ROOT / "docs" / "architecture.md").read_text()
    table = re.findall(r"^    (\w+) +\S.*?(?:\(([a-z ]+)\))?$", text, re.M)
    written = {folder: set(uses.split()) for folder, uses in table if folder in FOLDERS}
    assert written == FOLDERS


@pytest.mark.parametrize("folder,text", [
    ("base", '#include "codec/json.h"\n'),
    ("platform", '#include "agent/agent.h"\n'),
    ("tgsp", "#include <openssl/evp.h>\n"),
    ("wire", "#include <jansson.h>\n"),
    ("cli", ' # include "moai/worker.h"\n'),
    ("base", '#include "bytes.h"\n'),
])
def test_a_forbidden_include_is_found(folder, text):
    assert offences(folder, "x.c", text)


def test_allowed_includes_pass():
    assert not offences("moai", "x.c", '#include "tgsp/package.h"\n#include <onnxruntime_c_api.h>\n#include <stdio.h>\n')
