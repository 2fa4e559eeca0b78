"""libtensorguard: the header, the manual page and the version script name the same functions."""
import re

import pytest

import programs

MAP = (programs.ROOT / "src" / "client" / "libtensorguard.map").read_text()
HEADER = (programs.ROOT / "include" / "tensorguard" / "tensorguard.h").read_text()
PAGE = (programs.ROOT / "docs" / "man" / "libtensorguard.3").read_text()


def exported(text):
    return sorted(re.findall(r"^ +(tg_\w+);$", text.split("local:")[0], re.M))


def declared(text):
    """Functions: TG_API or TG_CHECKED at the start of a line, and the first name before a parenthesis."""
    return sorted(re.findall(r"^TG_(?:API|CHECKED)\b[^(;]*?\b(tg_\w+)\(", text, re.M))


def section(text, name):
    return re.search(rf"^\.SH {name}\n(.*?)(?=^\.SH )", text, re.M | re.S)[1]


def prototypes(text):
    return sorted(re.findall(r"\b(tg_\w+)\(", section(text, "SYNOPSIS")))


def described(text):
    """What the text below the synopsis names in bold."""
    return set(re.findall(r"^\.BR? (tg_\w+)", text.split(".SH DESCRIPTION")[1], re.M))


def test_header_and_version_script_agree():
    assert exported(MAP) == declared(HEADER)


def test_the_page_declares_and_describes_every_function():
    assert prototypes(PAGE) == exported(MAP)
    assert described(PAGE) == set(exported(MAP))


def plain(text):
    """A declaration without markup, macros and space."""
    text = re.sub(r"\b(TG_API|TG_CHECKED|TG_TENSOR_DIMS_MAX|16)\b|\.BI|\"|\\s", "", text)
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("name", exported(MAP))
def test_the_page_has_the_headers_prototype(name):
    (want,) = re.findall(rf"^TG_(?:API|CHECKED)\b[^;]*?\b{name}\([^;]*;", HEADER, re.M)
    lines = section(PAGE, "SYNOPSIS").replace("\n.BI \"    ", " ").splitlines()
    (got,) = [line for line in lines if re.search(rf"\b{name}\(", line)]
    assert plain(got) == plain(want)


@pytest.mark.parametrize("leaves", exported(MAP))
def test_a_function_that_is_left_out_is_noticed(leaves):
    without = re.sub(rf"\b{leaves}\b", "other", PAGE)
    assert prototypes(without) != exported(MAP) and described(without) != set(exported(MAP))
