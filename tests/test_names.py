"""Names that can be a file's."""

from __future__ import annotations

import pytest

from interp._names import component
from interp.errors import InterpError


@pytest.mark.parametrize("name", ["color-noun", "ñandú 2", "a.b", "console", "com10", "x" * 120, "日本", "v1..2"])
def test_a_plain_name_is_a_component(name: str) -> None:
    assert component(name, "'name'") == name


BAD_NAMES = {
    "": "is empty",
    "  ": "is empty",
    ".": "full stop",
    "..": "full stop",
    ".hidden": "full stop",
    "a.": "full stop",
    " a": "a space",
    "../../x": "'/'",
    "/abs/x": "'/'",
    "a/b": "'/'",
    "a\\b": r"'\\'",
    "C:x": "':'",
    "a\x00b": r"'\x00'",
    "a\nb": r"'\n'",
    "a\u2028b": r"'\u2028'",
    "a\ud800b": r"'\ud800'",
    "a*": r"'*'",
    "x" * 300: "300 bytes",
    "ñ" * 61: "122 bytes",
    "CON": "device",
    "con.txt": "device",
    "Lpt1": "device",
    "nul .a": "device",
}


@pytest.mark.parametrize(
    ("name", "why"), BAD_NAMES.items(), ids=[name.encode("unicode_escape").decode()[:12] for name in BAD_NAMES]
)
def test_a_name_that_no_file_should_have_is_refused_in_one_line(name: str, why: str) -> None:
    with pytest.raises(InterpError) as caught:
        component(name, "'name' in my.yaml")
    message = str(caught.value)
    assert message.startswith("'name' in my.yaml must be a name that a file can have, but it ")
    assert why in message
    assert "\n" not in message
    assert len(message) < 200


def test_what_is_no_text_is_no_name() -> None:
    with pytest.raises(InterpError, match=r"'name' must be text, not \['a'\]. Put it in quotes"):
        component(["a"], "'name'")
