"""Explanations on narrow and wide terminals: every number that of the data, nothing cut, nothing that steers."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from probekit.explanation.results import Trust
from probekit.report.explain_facts import checks, title
from probekit.report.explain_terminal import explained_layers, explained_text, word_lists
from tests.report.made_explanations import (
    GERMAN,
    HEBREW,
    LONG,
    NASTY,
    SHORT,
    explanation,
    importance,
    layer_explanation,
    words_table,
)
from tests.report.made_up import shown

WIDTHS = [40, 60, 80, 120, 200]
METHODS = ("occlusion", "lrp", "integrated-gradients")


def one(words, method="occlusion", text=SHORT, **values):
    """An explanation by one method with these importances."""
    return replace(explanation(text), importances=(importance(method, words),), **values)


def said(of):
    return " ".join(sentence.text for sentence in checks(of))


def columns(lines, heading):
    """The rows of the table below ``heading``: number of the word, and the last number."""
    start = next(i for i, line in enumerate(lines) if heading in line)
    return [re.findall(r"-?\d+\.\d+|–|^ *\d+", line) for line in lines[start + 1 :]]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("text", [SHORT, LONG, GERMAN, HEBREW, NASTY])
def test_every_number_stands_there_and_no_line_is_too_long(text, width):
    made = explanation(text, METHODS)
    lines = shown(explained_text(made), width)
    assert max(map(cell_len, lines)) <= width
    assert "…" not in "\n".join(lines)
    words = made.first.words
    order = np.argsort(-np.abs(words), kind="stable")[: len(words) if len(words) <= 12 else 10]
    for by in made.importances:
        for i in order:
            assert re.search(rf"(?<![\d.]){re.escape(f'{by.words[i]:.3f}')}(?!\d)", "\n".join(lines))


def test_words_stand_in_order_of_importance_whatever_the_sign():
    lines = shown(explained_text(one([0.1, -2.0, 0.5, 3.0, 0, 0.01, -0.2, 0.3, 1.0])), 80)
    rows = [row for row in columns(lines, "occlusion  ") if len(row) >= 2][:9]
    assert [int(row[0]) for row in rows] == [3, 1, 8, 2, 7, 6, 0, 5, 4]
    assert [row[1] for row in rows[:4]] == ["3.000", "-2.000", "1.000", "0.500"]


def test_of_many_words_the_ten_most_important():
    lines = shown(explained_text(explanation(LONG)), 80)
    rows = [line for line in lines if re.match(r" *\d+  \S+ +-?\d+\.\d{3}", line)]
    assert len(rows) == 10
    assert "The 10 most important of 63 words." in "\n".join(lines)


def test_the_text_stands_there_whole():
    lines = shown(explained_text(explanation(LONG)), 200)
    assert LONG in " ".join(line.strip() for line in lines if line)


def styles_of(made):
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard", highlight=False)
    parts = list(explained_text(made))
    found = [(segment.text, segment.style) for segment in console.render(parts[1])]
    return {text.strip(): str(style or "none") for text, style in reversed(found)}


def test_words_are_shaded_by_sign_and_size():
    made = one([3.0, -3.0, 1.5, -1.5, 0.5, -0.5, 0.01, np.nan, 0], text="A B C D E F G H I", of_word=6)
    styles = styles_of(made)
    expected = "bold reverse green,bold reverse magenta,bold green,bold magenta,green,magenta,underline,dim"
    assert [styles[word] for word in "ABCDEFGH"] == expected.split(",")
    assert "I" in styles


def test_a_number_has_no_probability():
    made = one(np.linspace(-1, 1, 9), answer=None, predicted=2.5, value=2.5, probability=None, target="V")
    assert title(made) == "V = 2.500"
    text = "\n".join(shown(explained_text(made), 120))
    assert "in units of V: positive words raise the number" in text
    assert "with the highest importance" in text
    assert "the number falls by 0.640" in text
    assert "probability" not in text


def test_a_title_says_what_else_is_predicted_and_of_which_word():
    assert title(explanation()) == "label = positive, probability 0.970"
    assert title(explanation(predicted="negative"), named=True) == (
        "1: label = positive, probability 0.970; predicted: negative"
    )
    assert title(explanation(predicted=["positive"])) == "label = positive, probability 0.970"
    assert title(explanation(predicted=["positive", "b"])).endswith("; predicted: positive, b")
    assert title(explanation(predicted=[])).endswith("; predicted: no label")
    assert title(explanation(of_word=3)).startswith('label of "fantastic" (word 3) = positive')
    assert title(explanation(answer=1, predicted=np.int64(1))) == "label = 1, probability 0.970"


def test_trust_in_words():
    words = [0.1, -2.0, 0.5, 3.0, 0, 0.01, -0.2, 0.3, 1.0]
    assert checks(one(words))[0].text == (
        'Without the 2 words with the highest importance ("fantastic", "superb.") the probability falls by 0.640, '
        "without 2 random ones it falls by 0.070."
    )
    assert checks(one(words))[1].text == (
        "With them alone the probability falls by 0.120, with 2 random ones alone it falls by 0.500."
    )
    made = one(words)
    (by,) = made.importances
    single = replace(made, importances=(replace(by, trust=Trust(1, -0.05, 0.0, 0.01, 0.2)),))
    assert checks(single)[0].text == (
        'Without the word with the highest importance ("fantastic") the probability rises by 0.050, '
        "without a random one it falls by 0.010."
    )
    assert [sentence.careful for sentence in checks(single)] == [False, False, True]
    assert "no more than random ones" in checks(single)[2].text
    assert not checks(replace(made, importances=(replace(by, trust=None),)))


def test_other_methods_have_their_own_trust_and_agreement():
    text = said(explanation(SHORT, METHODS))
    assert "By lrp: without its 2 words it falls by 0.640, with them alone it falls by 0.120." in text
    assert "The order of words by lrp agrees with that by occlusion to 0.871 (Spearman)." in text
    assert "integrated-gradients agrees with that by occlusion to 0.271 (Spearman); they disagree." in text
    assert "can't be said" in said(explanation(SHORT, METHODS[:2], agreement={"lrp": float("nan")}))


@pytest.mark.parametrize("gap", [0.0034, 0.0321])
def test_the_gap_of_integrated_gradients(gap):
    made = explanation(SHORT, ("integrated-gradients",))
    made = replace(
        made, importances=(importance("integrated-gradients", np.ones(9), gap=gap, steps=96, baseline="pad"),)
    )
    found = next(sentence for sentence in checks(made) if "adds up" in sentence.text)
    assert f"from the text with pad tokens for its words but for {gap:.2%}" in found.text
    assert found.careful == (gap > 0.01)
    assert ("more than 1%" in found.text) == (gap > 0.01)
    lines = shown(explained_text(made), 120)
    assert any(line.startswith("Careful: Integrated-gradients") for line in lines) == (gap > 0.01)
    same = replace(made.first, gap=float("inf"))
    assert "text and baseline have the same answer" in said(replace(made, importances=(same,)))


def test_what_falls_on_special_tokens():
    made = explanation(SHORT, ("lrp",))
    words = f"{made.first.words.sum():.3f}"
    assert f"By lrp: {words} falls on words, 0.030 on special tokens and the prompt." in said(
        replace(made, importances=(replace(made.first, apart=0.03),))
    )


def test_words_that_were_not_read_are_said():
    made = one([0.1, np.nan, 0.5, 3.0, 0, 0.01, -0.2, 0.3, np.nan])
    lines = shown(explained_text(made), 100)
    assert 'Careful: 2 of 9 words were not read: "movie", "superb.".' in lines
    assert not any(re.match(r" *[18]  ", line) for line in lines)
    assert '1 of 9 words was not read: "The".' in said(one([np.nan, *np.ones(8)]))
    assert "nan" not in "\n".join(lines)


def test_lengths_of_gradients_have_no_sign():
    made = one(np.arange(9.0), "gradient-norm")
    text = "\n".join(shown(explained_text(made), 120))
    assert "how far the answer would move, not which way" in text
    assert "with the largest gradient (" in text


def test_small_numbers_have_three_digits():
    text = "\n".join(shown(explained_text(one(np.arange(9) * 1.2345e-4)), 100))
    assert f"{8 * 1.2345e-4:.6f}" in text
    assert f"{1.2345e-4:.6f}" in text


def test_nothing_of_the_text_steers_the_terminal():
    text = "\n".join(shown(explained_text(explanation(NASTY, target="a\x1b[2Jb", answer="\u202ex")), 200))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\u001b[31mred" in text
    assert "a\\u001b[2Jb = \\u202ex" in text


def test_plain_characters_where_the_terminal_has_no_others():
    lines = shown(explained_text(explanation()), 100, encoding="ascii")
    assert any("#|" in line or "|#" in line for line in lines)


# Layers


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("n_layers", "text"), [(7, SHORT), (31, " ".join(LONG.split()[:40])), (13, LONG), (1, "One")])
def test_layers_fit(n_layers, text, width):
    made = layer_explanation(n_layers, text)
    lines = shown(explained_layers(made), width)
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    for numbers in (made.score, made.value):
        for value in numbers:
            assert re.search(rf"(?<![\d.]){re.escape(f'{value:.3f}')}(?!\d)", text)
    for share in made.share:
        assert f"{share:.1%}" in text


def test_cells_have_numbers_where_there_is_room():
    made = layer_explanation(7)
    lines = shown(explained_layers(made), 120)
    for i in range(9):
        (row,) = [line for line in lines if re.match(rf"{i}  \S", line)]
        expected = [made.baseline[i], *made.importance[:, i]]
        assert row.split()[2:] == [f"{value:.3f}" for value in expected]


def test_cells_have_marks_where_there_is_little():
    made = layer_explanation(
        3, "a b c d", importance=np.array([[6, -6, 2.5, 0.1], [4.1, -2.1, 1, 0], [0.7, -0.7, 0, 0]])
    )
    lines = shown(explained_layers(made), 40)
    rows = [line.split() for line in lines if re.match(r"\d  [a-d] ", line)]
    assert [row[-3:] for row in rows] == [["+++", "+++", "+"], ["---", "--", "-"], ["++", "+", "."], [".", ".", "."]]
    said = " ".join(" ".join(lines).split())
    assert "+ from 0.600, ++ from 2.000, +++ from 4.000" in said
    assert "- in place of + where a word speaks against the answer" in said


def test_shares_and_chance_are_said():
    made = layer_explanation(4, share=np.array([0.5, 0.25, 0.125, 0.75]), chance=0.222)
    text = " ".join(shown(explained_layers(made), 200))
    assert 'hangs most on "was".' in text
    assert "12.5% (layer 2) to 75.0% (layer 3) of the importance falls on that word" in text
    assert "on words at random it would be 22.2%" in text


def test_layers_without_a_text_baseline_and_with_unread_words():
    table = np.array([[1.0, np.nan, -0.5], [2.0, np.nan, 0.25]])
    nothing = {"baseline": None, "baseline_words": (), "share": np.full(2, np.nan), "chance": float("nan")}
    made = layer_explanation(2, "a b c", importance=table, **nothing)
    text = "\n".join(shown(explained_layers(made), 80))
    assert "There is no text baseline" in text
    assert "nan" not in text
    assert "words alone" not in text
    assert not re.search(r"^1  b", text, flags=re.MULTILINE)
    assert "2 of 3 words, those that are most important at any layer" in text


# A data set


@pytest.mark.parametrize("width", WIDTHS)
def test_word_lists(width):
    table = words_table(["negative", "positive"], word="wort{}" + "x" * 30)
    lines = shown(word_lists(table, n=4, least=5), width)
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    for answer in ("negative", "positive"):
        assert f"label = {answer}" in lines
        often = table[(table["answer"] == answer) & (table["n"] >= 5)].sort_values("mean_importance")
        means = often["mean_importance"]
        for value in (*means[means < 0].head(4), *means[means > 0].tail(4)):
            assert f"{value:.3f}" in text
        for value in (*means[means < 0][4:], *means[means > 0][:-4]):
            assert f" {value:.3f} " not in text


def test_word_lists_of_chosen_answers_and_of_numbers():
    table = words_table(["a", "b"])
    text = "\n".join(shown(word_lists(table, ["b"]), 80))
    assert "label = b" in text
    assert "label = a" not in text
    text = "\n".join(shown(word_lists(words_table([None])), 80))
    assert "raise it" in text
    assert "lower it" in text
    assert "label\n" in text
    text = "\n".join(shown(word_lists(table, least=99), 80))
    assert "No word that occurs 99 times or more" in text
