"""The page of explanations: numbers of the data, everything of the data's inert, no network, phone and desktop."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probekit.plain import plain, plain_lines
from probekit.report import explain_html
from probekit.report.explain_html import explanations_html
from tests.report.made_explanations import (
    ARABIC,
    GERMAN,
    HEBREW,
    LONG,
    NASTY,
    SHORT,
    explanation,
    importance,
    layer_explanation,
    word_spans,
    words_table,
)

METHODS = ("occlusion", "lrp", "integrated-gradients")
KNOWN = frozenset(
    re.findall(
        r"\w+",
        "html head meta title style body main h1 h2 h3 p span label select option section div ul li "
        "details summary table thead tbody tr th td script",
    )
)
VOID = {"meta", "link", "br", "input", "img"}
PAYLOADS = [
    *("</script><script>hacked=1</script>", "<img src=x onerror=hacked=1>", "\"' onclick=hacked=1 x='", "{{ 7*7 }}"),
    *(
        "<!--",
        "-->",
        "]]>",
        "&lt;b&gt;",
        "&#x22;",
        "javascript:hacked=1",
        "\u202e\u2066",
        "\x00\x1b[2J",
        "\ud800",
        "\u2028",
    ),
]


class Page(HTMLParser):
    """What stands where: every element with its attributes and all text in it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attrs": dict(attrs), "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def of(self, tag, kind=None):
        has = [element for element in self.elements if element["tag"] == tag]
        return [e for e in has if kind is None or kind in e["attrs"].get("class", "").split()]


def texts(*given, **values):
    return [explanation(text, METHODS, seed=i, id=f"text {i}", **values) for i, text in enumerate(given)]


def rows_of(page, heading):
    """The table in which ``heading`` is a column, as text, row by row."""
    found, inside = [], False
    for element in page.elements:
        if element["tag"] == "table":
            inside = heading in element["text"]
        if inside and element["tag"] == "tr":
            found.append([])
        if inside and element["tag"] in {"td", "th"}:
            found[-1].append(element["text"])
    return found


# Inert


def check_inert(text, n_words):
    """The page has the elements of the template, and nothing that runs beside its own script."""
    page = Page(text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]", text)
    assert len(page.of("script")) == 2
    assert len(page.of("span", "w")) == n_words
    assert {element["tag"] for element in page.elements} <= KNOWN
    names = {name for element in page.elements for name in element["attrs"]}
    assert not any(name.startswith("on") or name in {"href", "src"} for name in names)
    json.loads(page.of("script")[0]["text"])
    return page


@pytest.mark.parametrize("payload", [*PAYLOADS, NASTY])
def test_payloads_are_inert_wherever_they_stand(payload):
    words = f"a {payload} b"
    made = explanation(words, METHODS, id=payload, target=payload, answer=payload, predicted=payload)
    made = replace(made, tokens=tuple(payload for _ in made.tokens))
    layers = layer_explanation(2, words, target=payload, answer=payload, probe=payload)
    name = "a half" if payload == "\ud800" else payload  # pandas takes no halves of characters
    table = words_table([name, "b"], word="{}").assign(word=name, target=name)
    page = check_inert(explanations_html([made, made], layers, table), 2 * len(made.words))
    assert page.of("div", "text")[0]["text"] == plain_lines(words)
    assert plain(payload) in page.of("h1")[0]["text"]
    assert plain(payload) in page.of("h2")[0]["text"]


anything = st.text(st.characters(exclude_categories=[]), max_size=30) | st.sampled_from(PAYLOADS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(anything, min_size=1, max_size=5), anything, anything)
def test_any_text_is_inert(parts, target, token):
    text = " ".join(parts) + " end"
    made = explanation(text, METHODS[:2], target=target, answer=token)
    made = replace(made, tokens=tuple(token for _ in made.tokens))
    page = check_inert(explanations_html([made]), len(word_spans(text)))
    assert page.of("div", "text")[0]["text"] == plain_lines(text)
    shown = [span["text"] for span in page.of("span", "w")]
    assert shown == [plain(made.word(i)) for i in range(len(made.words))]


def test_nothing_is_loaded_from_elsewhere():
    text = explanations_html(texts(SHORT, LONG), layer_explanation(), words_table())
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<img|<iframe", text)
    (policy,) = [e for e in Page(text).of("meta") if e["attrs"].get("http-equiv") == "Content-Security-Policy"]
    assert policy["attrs"]["content"].startswith("default-src 'none';")


def test_the_same_data_give_the_same_page():
    pages = [explanations_html(texts(SHORT, NASTY), layer_explanation(), words_table()) for _ in range(2)]
    assert pages[0] == pages[1]
    pages[0].encode()


# Numbers


def test_words_have_their_numbers_and_shades():
    made = explanation(LONG, METHODS)
    page = Page(explanations_html([made]))
    words = made.first.words
    largest = np.abs(words).max()
    for span, value in zip(page.of("span", "w"), words, strict=True):
        assert span["attrs"]["title"] == f"occlusion: {value:.3f}"
        assert ("for" if value > 0 else "against") in span["attrs"]["class"].split()
        opacity = float(span["attrs"]["style"].removeprefix("--a:"))
        assert opacity == pytest.approx(0.6 * abs(value) / largest, abs=0.001)


def test_the_table_has_all_words_by_all_methods_in_order_of_importance():
    made = explanation(LONG, METHODS)
    heading, *rows = rows_of(Page(explanations_html([made])), "word")
    assert heading == ["#", "word", *METHODS]
    order = sorted(range(63), key=lambda i: -abs(made.first.words[i]))
    expected = [[str(i), made.word(i), *(f"{by.words[i]:.3f}" for by in made.importances)] for i in order]
    assert rows[:63] == expected


def test_the_script_has_what_the_table_has():
    made = texts(SHORT, GERMAN)
    data = json.loads(Page(explanations_html(made)).of("script")[0]["text"])
    assert data["methods"] == list(METHODS)
    for one, packed in zip(made, data["texts"], strict=True):
        for by, cells in zip(one.importances, packed, strict=True):
            assert [cell[2] for cell in cells] == [f"{value:.3f}" for value in by.words]
            assert [cell[0].split()[0] for cell in cells] == ["for" if v > 0 else "against" for v in by.words]


def test_tokens():
    made = explanation(SHORT, METHODS)
    heading, *rows = rows_of(Page(explanations_html([made])), "of word")
    assert heading == ["#", "token", "of word", *METHODS[1:]]  # by occlusion they have no importance
    assert rows[0] == ["0", "[CLS]", "", *(f"{by.tokens[0]:.3f}" for by in made.importances[1:])]
    assert rows[1] == ["1", "The", "The", *(f"{by.tokens[1]:.3f}" for by in made.importances[1:])]
    assert len(rows) == 11


def test_checks_are_said_and_warnings_stand_out():
    made = explanation(SHORT, METHODS)
    items = Page(explanations_html([made])).of("li")
    text = " ".join(item["text"] for item in items)
    assert "the probability falls by 0.640, without 2 random ones it falls by 0.070." in text
    assert "to 0.871 (Spearman)" in text
    careful = [item["text"] for item in items if "careful" in item["attrs"].get("class", "")]
    assert len(careful) == 1
    assert careful[0].startswith("Careful: The order of words by integrated-gradients")


def test_words_that_were_not_read():
    made = explanation("a b c")
    made = replace(made, importances=(importance("occlusion", [1, np.nan, -2]),))
    text = explanations_html([made])
    page = Page(text)
    assert [span["attrs"]["title"] for span in page.of("span", "unread")] == ["occlusion: not read"]
    assert [row[1] for row in rows_of(page, "word")[1:4]] == ["c", "a", "b"]
    assert "nan" not in text.lower().replace("unread", "")


def test_a_choice_of_method_only_where_there_are_several():
    assert len(Page(explanations_html([explanation(SHORT, METHODS)])).of("option")) == 3
    assert not Page(explanations_html([explanation()])).of("select")


def test_words_x_layers():
    made = layer_explanation(13, LONG)
    heading, *rows = rows_of(Page(explanations_html([], made)), "words alone")
    assert heading == ["layer", "words alone", *map(str, range(13))]
    for i in range(63):
        star = " *" if i in made.baseline_words else ""
        values = [made.baseline[i], *made.importance[:, i]]
        assert rows[i] == [made.word(i) + star, *(f"{value:.3f}" for value in values)]
    assert rows[63][2:] == [f"{share:.1%}" for share in made.share]
    assert rows[64] == ["accuracy", "", *(f"{score:.3f}" for score in made.score)]
    assert rows[65] == ["log-odds", "", *(f"{value:.3f}" for value in made.value)]


def test_layers_without_a_baseline():
    text = explanations_html([], layer_explanation(baseline=None))
    assert "words alone" not in text
    assert "There is no text baseline" in text


def test_word_lists():
    table = words_table(["a", "b", "c"])
    page = Page(explanations_html([], None, table, n=4, least=5))
    assert [e["text"] for e in page.of("h3")] == ["label = a", "label = b", "label = c"]
    rows = [row for row in rows_of(page, "speak for it") if row[0] != "speak for it"]
    often = table[(table["answer"] == "a") & (table["n"] >= 5) & (table["mean_importance"] > 0)].head(4)
    expected = [[r.word, f"{r.mean_importance:.3f}", str(r.n)] for r in often.itertuples()]
    assert rows[: len(expected)] == expected


def test_what_is_left_out_is_said(monkeypatch):
    monkeypatch.setattr(explain_html, "MOST_TEXTS", 3)
    text = explanations_html(texts(*[SHORT] * 5))
    assert "The first 3 texts are shown; 2 more are left out." in text
    assert len(Page(text).of("section")) == 3


# In a browser

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
needs_browser = pytest.mark.skipif(not BROWSER, reason="there is no chromium")

ASK = """<script>
function put(found) { parent.postMessage(JSON.stringify(found), "*"); }
addEventListener("load", () => {
  const parts = Array.from(document.querySelectorAll("h1, h2, h3, p, li, .text, details"));
  const clipped = parts.filter((e) => e.scrollWidth > e.clientWidth + 1).length;
  const first = { wide: document.documentElement.scrollWidth, room: innerWidth, clipped, hacked: typeof hacked };
  const choice = document.getElementById("method");
  if (choice) { choice.value = "1"; choice.dispatchEvent(new Event("change")); }
  first.titles = Array.from(document.querySelectorAll(".w")).map((w) => w.title);
  first.kinds = Array.from(document.querySelectorAll(".w")).map((w) => w.className);
  document.querySelectorAll(".w")[2].click();
  first.told = document.querySelector(".told").textContent;
  first.ink = getComputedStyle(document.body).color;
  first.shade = getComputedStyle(document.querySelectorAll(".w")[2]).backgroundColor;
  put(first);
});
</script>"""


def in_browser(folder, text, width, *, dark=False):
    """What the page says of itself when it is ``width`` pixels wide."""
    (folder / "page.html").write_text(text.replace("</body>", ASK + "</body>"), encoding="utf-8")
    frame = f"<body><iframe src=page.html width={width} height=800></iframe><pre id=found></pre><script>"
    frame += "addEventListener('message', (e) => { document.getElementById('found').textContent = e.data; });</script>"
    (folder / "frame.html").write_text(frame, encoding="utf-8")
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=5000"]
    command += ["--dump-dom", (folder / "frame.html").as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', dumped, flags=re.DOTALL)[1]))


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False)])
def test_in_a_browser(tmp_path, width, dark):
    made = texts(SHORT, LONG, GERMAN, HEBREW, ARABIC, NASTY, " ".join(PAYLOADS))
    text = explanations_html(made, layer_explanation(31, " ".join(LONG.split()[:40])), words_table())
    found = in_browser(tmp_path, text, width, dark=dark)
    assert found["room"] == width
    assert found["wide"] <= width
    assert found["clipped"] == 0
    assert found["hacked"] == "undefined"
    lrp = [value for one in made for value in one.importances[1].words]
    assert found["titles"] == [f"lrp: {value:.3f}" for value in lrp]
    assert [kind.split()[1] for kind in found["kinds"]] == ["for" if value > 0 else "against" for value in lrp]
    numbers = ", ".join(f"{by.method} {by.words[2]:.3f}" for by in made[0].importances)
    assert found["told"] == f"“was” (word 2): {numbers}"
    ink = [int(part) for part in re.findall(r"\d+", found["ink"])]
    assert (min(ink) > 200) == dark


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("dark", [False, True])
def test_shaded_words_can_be_read(dark):
    """The darkest shade leaves the text a contrast of 4.5 to 1, what WCAG asks of text."""
    style = Page(explanations_html([explanation()])).of("style")[0]["text"]
    roots = re.findall(r":root \{(.*?)\}", style)
    colours = {k: v for root in roots[: 1 + dark] for k, v in re.findall(r"--([a-z]+): ([^;]+);", root)}

    def rgb(name):
        value = colours[name]
        if value.startswith("#"):
            digits = value[1:] if len(value) == 7 else "".join(2 * c for c in value[1:])
            return np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        return np.array([int(part) / 255 for part in value.split()])

    for side in ("for", "against"):
        behind = luminance(explain_html.DARKEST * rgb(side) + (1 - explain_html.DARKEST) * rgb("page"))
        low, high = sorted([behind, luminance(rgb("ink"))])
        assert (high + 0.05) / (low + 0.05) >= 4.5, side
    low, high = sorted([luminance(rgb("careful")), luminance(rgb("page"))])
    assert (high + 0.05) / (low + 0.05) >= 4.5
