"""A page is one whole file, in which names are text, and figures say what they show."""

import base64
import hashlib
import json
import re
from html import unescape
from pathlib import Path

import pytest

from abaw_expr.report.blocks import Block, Fact, Facts, Figure, Part, Table, Text
from abaw_expr.report.figures import Line, bars, distinct, heat, lines, plain
from abaw_expr.report.packing import Pack, as_json
from abaw_expr.report.page import abbreviated, cell_text, compact, counted, render, signed, write_page
from tests.helpers.pages import PageData

ODD = (
    "</script><script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    "a & b < c > d \"quoted\" 'too'",
    "$$x^2$$ and $1",
    "two\nlines",
    "\u202eright to left\u202c שלום",
    "{{ 7 * 7 }} {% raw %}",
    "n" * 200,
    "a\u2028b",
    "<!--",
)


def page_of(*blocks: Block, title: str = "Title") -> str:
    return render(title, [Part("Part", blocks)], Pack())


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_text_wherever_it_stands(name: str) -> None:
    line = Line(name, [1, 2], [0.1, 0.2], "#000000")
    blocks: list[Block] = [
        Text(name),
        Facts([Fact(name, name, name)]),
        Table(name, (name, "x"), [(name, 1)]),
        lines(name, (name, name), [line]),
        bars(name, ("a", "b"), [name, name], [0.1, 0.2], ["#000000"] * 2, [""] * 2),
        heat(name, ("a", "b", "c"), [name, "other"], [name], [[0.1, 0.2]]),
    ]
    text = page_of(*blocks, title=name)
    assert name not in text or not set(name) & {"<", "&"}
    assert len(re.findall("<script", text)) == 4
    assert len(re.findall("</script>", text)) == 4
    assert "<img" not in text
    assert unescape(re.findall(r"<h1><bdi>(.*?)</bdi></h1>", text, re.DOTALL)[0]) == name
    assert len(PageData.of(text).data["figures"]) == 3


def test_json_cannot_end_its_element() -> None:
    text = str(as_json({"name": ODD}))
    assert not set(text) & {"<", ">", "&", "\u2028", "\u2029"}
    assert json.loads(text) == {"name": list(ODD)}


def test_only_scripts_that_the_policy_names_may_run() -> None:
    text = page_of(Text("x"))
    policy = unescape(re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)[0])
    allowed = re.findall(r"'sha256-(.*?)'", policy)
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[0]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == allowed[0]
    assert len(allowed) == 2
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy


def test_a_page_asks_for_nothing() -> None:
    text = page_of(Text("x"))
    markup = re.sub(r'<script type="text/plain".*?</script>', "", text, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", markup)
    assert "://" not in markup.replace("http://www.w3.org", "")


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("before")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_page(path, "Title", [Part("Part", [Figure("t", {"x": float("nan")}, "s", 10)])], Pack())
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_figures_have_labels_at_both_axes() -> None:
    figure = lines("t", ("time, s", "score"), [Line("a", [1, 2], [0.1, None], "#000000", low=[0, 0], high=[1, 1])])
    text = json.dumps(figure.item)
    assert "time, s" in text
    assert "score" in text
    assert [key.name for key in figure.keys] == ["a"]
    assert figure.summary == "score over time, s: a from 0.100 to -."


def test_equal_figures_are_equal() -> None:
    one, other = (heat("t", ("a", "b", "c"), ["1", "2"], ["x"], [[0.1, None]], [(0, 1)]) for _ in range(2))
    assert one == other


def test_numbers_in_tables_are_aligned() -> None:
    table = Table("t", ("a", "b", "c", "d"), [("x", 1, None, "+0.5"), ("y", 0.5, 2, "-")])
    assert table.numeric == [False, True, True, True]


def test_short_forms() -> None:
    assert [compact(count) for count in (0, 9999, 12_345, 999_499, 1_234_567)] == ["0", "9999", "12k", "999k", "1.2M"]
    assert [signed(value) for value in (0.12345, -0.00001, -0.5)] == ["+0.1235", "0.0000", "-0.5000"]
    assert [cell_text(value) for value in (None, 0.5, 12_345, "x")] == ["-", "0.5000", "12,345", "x"]
    assert (counted(1, "frame"), counted(2000, "frame")) == ("1 frame", "2,000 frames")
    assert [abbreviated(name) for name in ("Neutral", "Fearfully_Surprised", "+0.25 to +0.50")] == [
        "Neut",
        "FeSu",
        "+0.25",
    ]
    assert plain("a  b\nc") == "a b c"
    assert len(plain("n" * 200)) == 26
    assert len(set(distinct(["n" * 200, "n" * 199, "n" * 198, "m"]))) == 4
