"""Attention as pictures and as a page: every map in its place, every label whole, and no text that does anything."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from probekit.cli import run
from probekit.explanation.attention_result import AttentionResult
from probekit.report.attention_figure import _any_script, attention_figure, draw_attention
from probekit.report.attention_html import attention_page, write_attention
from probekit.report.attention_table import strongest

HOSTILE = [
    "</script><script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "a & b",
    "'",
    "{{ 7 * 7 }}",
    "\u202eabc",
    "<!--",
]


def made_up(n=8, layers=(1, 2, 5), heads=(0, 3), *, tokens=None, seed=0, **more):
    """Random attention, causal, rows summing to 1."""
    rng = np.random.default_rng(seed)
    weights = np.tril(rng.gamma(0.4, size=(len(layers), len(heads), n, n)) + 1e-4)
    weights = (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
    names = tuple(tokens or (f"token{i}" for i in range(n)))
    return AttentionResult(
        model="org/model",
        text=" ".join(names),
        side="encoder",
        tokens=names,
        token_ids=np.arange(n),
        layers=layers,
        heads=heads,
        weights=weights,
        **more,
    )


# Pictures


def drawn(result):
    figure = attention_figure(result)
    canvas = FigureCanvasAgg(figure)
    with _any_script():
        canvas.draw()
    return figure, canvas.get_renderer()


LABELLED = {
    "one map": made_up(40, (3,), (2,), tokens=[f"a rather long token {i}" for i in range(40)]),
    "four maps": made_up(40, (3, 4), (2, 5)),
    "rollout": replace(made_up(40), rollout=made_up(40).weights[0, 0], rollout_layer=5),
    "one token": made_up(1, (1,), (0,)),
    "formulas": made_up(7, (1,), (0,), tokens=["$x$", r"$\nope{$", "a_b", "日本", "😀", "\\", "%"]),
    "first hidden": replace(made_up(40, (3,), (2,)), hide_first=True, truncated=True),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_whole_and_in_nobodys_way(name):
    result = LABELLED[name]
    figure, renderer = drawn(result)
    page = figure.bbox
    heading = [text.get_window_extent(renderer) for text in figure.texts]
    maps = [axes for axes in figure.axes if axes.images]
    for axes in maps:
        labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title]
        assert len(labels) == 2 * len(result.tokens) + 1
        boxes = [label.get_window_extent(renderer) for label in labels]
        for box in boxes:
            assert page.x0 <= box.x0 < box.x1 <= page.x1
            assert page.y0 <= box.y0 < box.y1 <= page.y1
            assert not any(box.overlaps(other) for other in heading)
        columns, rows, title = boxes[: len(result.tokens)], boxes[len(result.tokens) : -1], boxes[-1]
        for one, other in [*pairwise(columns), *pairwise(rows)]:
            assert not one.overlaps(other)
        assert not any(title.overlaps(box) for box in columns)
    panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
    for i, one in enumerate(panels):
        assert page.x0 <= one.x0 < one.x1 <= page.x1
        assert page.y0 <= one.y0
        assert not any(one.overlaps(other) for other in panels[i + 1 :])


def test_labelled_maps_show_the_weights_of_their_layer_and_head():
    result = made_up(6, (3, 4), (2, 5))
    figure, _ = drawn(result)
    maps = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.get_title()}
    assert list(maps) == ["layer 3, head 2", "layer 3, head 5", "layer 4, head 2", "layer 4, head 5"]
    for found, (_, _, weights) in zip(maps.values(), result.maps(), strict=True):
        assert np.array_equal(found, weights)


@pytest.mark.parametrize("n", [7, 40])
def test_small_maps_stand_at_their_layer_and_head(n):
    result = made_up(n, tuple(range(1, 31)), tuple(range(9)))
    figure, renderer = drawn(result)
    axes = figure.axes[0]
    mosaic = np.asarray(axes.images[0].get_array())
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(head) for head in result.heads]
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(layer) for layer in result.layers]
    step = mosaic.shape[1] / 9
    for i, y in enumerate(axes.get_yticks()):
        for j, x in enumerate(axes.get_xticks()):
            around = mosaic[int(y - step / 2) + 6 : int(y + step / 2), int(x - step / 2) + 6 : int(x + step / 2)]
            shown = around[around >= 0]
            assert set(np.unique(shown)) <= set(np.unique(result.weights[i, j]))
            assert shown.max() == result.weights[i, j].max()
    # A cell is a square of whole pixels of the file.
    pixels = axes.get_window_extent(renderer).width / figure.dpi * 150
    assert pixels == pytest.approx(mosaic.shape[1], abs=0.5)
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]:
        box = label.get_window_extent(renderer)
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_labels_are_plain():
    figure, _ = drawn(made_up(3, (1,), (0,), tokens=["\x1b[31m", "\u202eabc", "$x"]))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["\\u001b[31m", "\\u202eabc", "$x"]


def test_small_maps_of_a_long_text_show_the_largest_weights():
    result = made_up(1000, (1, 2), (0, 1, 2))
    result.weights[:] = 0.001
    result.weights[1, 2, 700, 300] = 0.9
    figure, _ = drawn(result)
    mosaic = np.asarray(figure.axes[0].images[0].get_array())
    assert max(mosaic.shape) < 2000
    y, x = (places.mean() for places in np.nonzero(mosaic == np.float32(0.9)))
    height, width = mosaic.shape[0] / 2, mosaic.shape[1] / 3
    assert y / height == pytest.approx(1.7, abs=0.03)
    assert x / width == pytest.approx(2.3, abs=0.03)
    assert "largest weight of a block" in " ".join(text.get_text() for text in figure.texts)


def test_the_hidden_first_token_is_grey():
    figure, _ = drawn(replace(made_up(6, (1,), (0,)), hide_first=True))
    image = figure.axes[0].images[0]
    shown = np.ma.filled(image.get_array(), np.nan)
    assert np.isnan(shown[:, 0]).all()
    np.testing.assert_allclose(shown[2:, 1:].sum(axis=1), 1, atol=1e-6)
    assert image.cmap.get_bad()[:3] == pytest.approx([0.87] * 3)
    assert "the first token is hidden" in " ".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_weights_are_the_same_file(suffix, tmp_path):
    result = made_up(5, (1,), (0, 1), tokens=["日", "$", "😀", "\x1b[31m", "\n"])
    for name in ("a", "b"):
        draw_attention(result, tmp_path / (name + suffix))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


# The page


def embedded(page):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(found)


def test_the_page_holds_every_weight():
    result = replace(made_up(), rollout=made_up(seed=1).weights[0, 0], rollout_layer=5)
    data = embedded(attention_page(result))
    for packed, weights in ((data["weights"], result.weights), (data["rollout"], result.rollout)):
        steps = np.frombuffer(base64.b64decode(packed), dtype="<u2").reshape(weights.shape)
        np.testing.assert_allclose(steps / data["steps"], weights, atol=0.5001 / data["steps"])
    assert (data["layers"], data["heads"], data["tokens"]) == ([1, 2, 5], [0, 3], list(result.tokens))


def test_texts_are_inert():
    result = replace(made_up(len(HOSTILE), tokens=HOSTILE), model='<b>&"model"')
    page = attention_page(result)
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert "<b>" not in page
    assert "\u202e" not in page
    data = page.split('id="data">')[1].split("</script>")[0]
    assert not set(data) & set("<>&'")
    assert embedded(page)["tokens"] == [token.replace("\u202e", "\\u202e") for token in HOSTILE]


def test_no_network():
    page = re.sub('id="data">.*?</script>', "", attention_page(made_up()), flags=re.DOTALL)
    assert not re.search(r"https?:|//[a-z]|\bsrc=|<link|@import|url\(|fetch\(|XMLHttpRequest", page)
    assert "default-src 'none'" in page


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


def chromium(folder, address, *more):
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", *more, address]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def links(dom):
    body = dom.split('id="links">')[1].split("</tbody>")[0]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]


@needs_chromium
def test_another_head_is_another_picture(tmp_path):
    result = made_up(40)
    write_attention(result, tmp_path / "a.html")
    address = (tmp_path / "a.html").as_uri()
    for layer, head in ((1, 0), (5, 3)):
        dom = chromium(tmp_path, f"{address}#layer={layer}&head={head}", "--dump-dom")
        assert f'<h2 id="title">Layer {layer}, head {head}</h2>' in dom
        weights = result.weights[result.layers.index(layer), result.heads.index(head)]
        expected = strongest(weights, 12, hide_first=False)
        assert [(int(row[0]), int(row[2])) for row in links(dom)] == [(link.source, link.target) for link in expected]
        assert [row[1] for row in links(dom)] == [result.tokens[link.source] for link in expected]
    pictures = []
    for place in ("layer=1&head=0", "layer=5&head=3", "layer=1&head=0"):
        chromium(tmp_path, f"{address}#{place}", f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1280,1000")
        pictures.append(_pixels(tmp_path / "shot.png"))
    assert np.array_equal(pictures[0], pictures[2])
    changed = np.abs(pictures[0] - pictures[1]).max(axis=-1) > 0.02
    # The map stands below the heading: most of what changes is there, and it is a good part of it.
    assert changed[300:].mean() > 0.1


def _pixels(path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


@needs_chromium
def test_the_map_has_the_colours_of_its_weights(tmp_path):
    """A token that attends to one other alone: its cell is the darkest of the row."""
    result = made_up(10, (1,), (0,))
    result.weights[:] = np.eye(10, dtype=np.float32)
    result.weights[0, 0, 7] = np.eye(10, dtype=np.float32)[2]
    write_attention(result, tmp_path / "a.html")
    shot = tmp_path / "shot.png"
    chromium(tmp_path, (tmp_path / "a.html").as_uri(), f"--screenshot={shot}", "--window-size=1280,900")
    strongest_colour = np.linalg.norm(_pixels(shot) - np.array([8, 38, 92]) / 255, axis=-1) < 0.02
    strongest_colour[strongest_colour.sum(axis=1) < 15] = False  # the scale ends with it, too
    dark = np.argwhere(strongest_colour)
    top, left = dark.min(axis=0)
    cell = (dark.max(axis=0) - dark.min(axis=0) + 1) / 10
    seen = {(int((y - top) // cell[0]), int((x - left) // cell[1])) for y, x in dark}
    assert seen == {(i, i) for i in range(10) if i != 7} | {(7, 2)}


@needs_chromium
def test_hiding_the_first_token_and_rollout_in_the_page(tmp_path):
    result = replace(made_up(12), rollout=made_up(12, seed=1).weights[0, 0], rollout_layer=5, hide_first=True)
    write_attention(result, tmp_path / "a.html")
    address = (tmp_path / "a.html").as_uri()
    dom = chromium(tmp_path, f"{address}#rollout", "--dump-dom")
    assert '<h2 id="title">Rollout, layers 1 to 5</h2>' in dom
    dom = chromium(tmp_path, f"{address}#layer=2&head=3", "--dump-dom")
    found = links(dom)
    assert found
    shown = result.shown(result.weights[1, 1])
    assert all(int(row[2]) > 0 for row in found)
    for row in found:
        assert float(row[4]) == pytest.approx(shown[int(row[0]), int(row[2])], abs=6e-4)


@needs_chromium
def test_texts_are_inert_in_a_browser(tmp_path):
    result = replace(made_up(len(HOSTILE), tokens=HOSTILE), model='<b>&"model"')
    write_attention(result, tmp_path / "a.html")
    dom = chromium(tmp_path, (tmp_path / "a.html").as_uri(), "--dump-dom")
    assert '<title>Attention: &lt;b&gt;&amp;"model"</title>' in dom
    assert dom.count("<script") == 2
    assert "<img" not in dom
    assert '<h2 id="title">Layer 1, head 0</h2>' in dom


def test_the_command_writes_both(tiny_model, tmp_path, capsys):
    words = ["attention", str(tiny_model), "--text", "good </script> film", "--hide-first", "--rollout"]
    files = [tmp_path / "a.svg", tmp_path / "a.html"]
    assert run([*words, "--plot", str(files[0]), "--html", str(files[1])]) == 0
    assert f"wrote {files[0]}, {files[1]}" in capsys.readouterr().err
    assert embedded(files[1].read_text())["hideFirst"]
    assert run([*words, "--html", str(files[1])]) == 2
    assert "exists already" in capsys.readouterr().err
    assert run([*words, "--html", str(files[1]), "--overwrite"]) == 0


def test_a_page_too_large_is_refused_before_the_pass(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("probekit.report.attention_html.MOST_WEIGHTS", 63)
    words = ["attention", str(tiny_model), "--text", "good film", "--html", str(tmp_path / "a.html")]
    assert run(words) == 2
    assert "--html: takes 63 weights at most; ask for fewer with --layers, --heads or --max-length; got 64" in (
        capsys.readouterr().err
    )
    assert run([*words, "--layers", "1"]) == 0
