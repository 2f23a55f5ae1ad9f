"""``probekit.explain`` and its command on a tiny model: against ``predict`` on texts changed by hand."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from scipy.stats import spearmanr

from probekit import explain, explain_layers, extract, predict, probe, save, train
from probekit.cli import run
from probekit.errors import InputError, ProbekitError, SpecError
from tests.training.trained import table

TEXT = "a very good film the dull plot"
WORDS = TEXT.split()
OPTIONS = {"device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """A cache, saved probes of several kinds at layer 1, and trained heads."""
    folder = tmp_path_factory.mktemp("explain")
    data = table(80)
    cache = extract(tiny_model, data, out=folder / "cache.h5", dtype="float32", tokens=True, token_dtype="float32")
    for name, target, options in (
        ("label", "label", {}),
        ("kind", "kind", {}),
        ("score", "score", {}),
        ("topics", "topics", {}),
        ("knn", "kind", {"probe": "knn"}),
    ):
        save(probe(cache, target, layers=1, refit=False, **options), folder / name)
    train(cache, ["label", "score"], layer=1, out=folder / "heads")
    return folder, tiny_model, cache


def one(made, name, text=TEXT, **options):
    folder, model, _ = made
    return explain(folder / name, text, model=model, **OPTIONS, **options)[0]


def log_odds(made, name, texts, answer):
    """By ``predict``, which reads packed and knows nothing of explanations."""
    folder, model, _ = made
    found = predict(folder / name, texts, model=model, **OPTIONS)
    p = found.probability[:, list(map(str, found.classes)).index(str(answer))]
    return logit(p)


def without(words, *dropped):
    return " ".join(word for i, word in enumerate(words) if i not in dropped)


@pytest.mark.parametrize("name", ["label", "kind"])
def test_a_words_importance_is_what_the_log_odds_lose_without_it(made, name):
    found = one(made, name)
    texts = [TEXT, *(without(WORDS, i) for i in range(len(WORDS)))]
    scores = log_odds(made, name, texts, found.answer)
    np.testing.assert_allclose(found.first.words, scores[0] - scores[1:], atol=1e-3)
    assert found.value == pytest.approx(scores[0], abs=2e-4)
    assert [found.word(i) for i in range(len(WORDS))] == WORDS
    answer = predict(made[0] / name, TEXT, model=made[1], **OPTIONS)
    assert (found.predicted, found.answer) == (answer.labels[0], answer.labels[0])
    assert found.probability == pytest.approx(answer.probability[0].max(), abs=1e-4)


def test_a_number_is_explained_in_its_units(made):
    folder, model, _ = made
    found = one(made, "score")
    texts = [TEXT, *(without(WORDS, i) for i in range(len(WORDS)))]
    numbers = predict(folder / "score", texts, model=model, **OPTIONS).labels
    np.testing.assert_allclose(found.first.words, numbers[0] - numbers[1:], atol=1e-3)
    assert (found.answer, found.probability) == (None, None)
    assert found.value == pytest.approx(numbers[0], abs=1e-3) == pytest.approx(found.predicted)


def test_a_label_is_explained_whether_it_is_answered_or_not(made):
    for label in ("actor", "plot"):
        found = one(made, "topics", answer=label)
        assert found.answer == label
        np.testing.assert_allclose(found.value, log_odds(made, "topics", [TEXT], label)[0], atol=2e-4)
    assert found.predicted == predict(made[0] / "topics", TEXT, model=made[1], **OPTIONS).labels[0]


def test_heads_are_explained_as_probes_are(made):
    folder, model, _ = made
    found = explain(folder / "heads", TEXT, target="label", model=model, **OPTIONS)[0]
    answer = predict(folder / "heads", TEXT, target="label", model=model, **OPTIONS)
    assert found.predicted == answer.labels[0]
    assert found.probability == pytest.approx(answer.probability[0].max(), abs=1e-4)
    number = explain(folder / "heads", TEXT, target="score", model=model, **OPTIONS)[0]
    assert number.value == pytest.approx(
        predict(folder / "heads", TEXT, target="score", model=model, **OPTIONS).labels[0], abs=1e-3
    )
    assert [one.method for one in number.importances] == ["occlusion", "lrp", "integrated-gradients"]


def test_a_probe_without_gradients_is_explained_by_leaving_words_out(made):
    found = one(made, "knn")
    assert [part.method for part in found.importances] == ["occlusion"]
    with pytest.raises(SpecError, match="needs a probe that a gradient can go through"):
        one(made, "knn", method="lrp")


def test_trust_is_what_is_lost_without_the_most_important_words_and_with_them_alone(made):
    found = one(made, "label", seed=3)
    trust = found.first.trust
    n = trust.n_words
    assert n == 2  # a fifth of seven words, rounded up
    top = np.argsort(-found.first.words)[:n].tolist()
    rest = [i for i in range(len(WORDS)) if i not in top]
    p = 1 / (1 + np.exp(-log_odds(made, "label", [TEXT, without(WORDS, *top), without(WORDS, *rest)], found.answer)))
    assert trust.comprehensiveness == pytest.approx(p[0] - p[1], abs=1e-4)
    assert trust.sufficiency == pytest.approx(p[0] - p[2], abs=1e-4)
    rng = np.random.default_rng(3)
    draws = [rng.choice(len(WORDS), size=n, replace=False).tolist() for _ in range(10)]
    texts = [TEXT, *(without(WORDS, *draw) for draw in draws)]
    p = 1 / (1 + np.exp(-log_odds(made, "label", texts, found.answer)))
    assert trust.random_comprehensiveness == pytest.approx((p[0] - p[1:]).mean(), abs=1e-4)
    assert one(made, "label", text="good").first.trust is None
    assert one(made, "label", trust=False).first.trust is None


def test_methods_agree_as_scipys_spearman_says(made):
    found = one(made, "label")
    for part in found.importances[1:]:
        expected = spearmanr(found.first.words, part.words).statistic
        assert found.agreement[part.method] == pytest.approx(expected)


def test_several_texts_are_explained_as_each_alone_and_blank_ones_not_at_all(made):
    folder, model, _ = made
    texts = [TEXT, " ", "bad", "the film the film the film very dull"]
    together = explain(folder / "label", texts, model=model, **OPTIONS)
    assert [found.id for found in together] == ["1", "3", "4"]
    for found in together:
        alone = one(made, "label", text=texts[int(found.id) - 1])
        assert json.dumps({**found.json(), "id": ""}) == json.dumps({**alone.json(), "id": ""})


def test_many_texts_are_explained_by_one_method(made):
    folder, model, _ = made
    found = explain(folder / "label", [TEXT] * 21, model=model, trust=False, **OPTIONS)
    assert all(len(each.importances) == 1 for each in found)


def test_special_tokens_and_the_prompt_stand_apart(tiny_model, tmp_path):
    cache = extract(tiny_model, table(60), out=tmp_path / "c.h5", prompt="the film {text} a plot", dtype="float32")
    save(probe(cache, "label", layers=1), tmp_path / "probes")
    (found,) = explain(tmp_path / "probes", "very good", model=tiny_model, **OPTIONS)
    assert [found.word(i) for i in range(len(found.words))] == ["very", "good"]
    assert found.tokens == ("[CLS]", "the", "film", "very", "good", "a", "plot", "[SEP]")
    assert found.token_word.tolist() == [-1, -1, -1, 0, 1, -1, -1, -1]
    lrp, ig = found.importances[1:]
    np.testing.assert_allclose(lrp.apart, lrp.tokens[found.token_word < 0].sum())
    assert abs(lrp.apart) > 0
    assert ig.apart == 0
    assert ig.gap < 0.01
    for part in (lrp, ig):
        np.testing.assert_allclose(part.words, [part.tokens[found.token_word == w].sum() for w in (0, 1)])


def test_what_can_not_be_explained_is_said_in_one_line(made):
    folder, model, _ = made
    for wrong, said in (
        ({"answer": "fine"}, "--class fine: one of neg, pos"),
        ({"method": "shap"}, "--method shap: one of occlusion, lrp"),
        ({"remove": "swap"}, "--remove swap: one of delete, mask"),
        ({"baseline": "mean"}, "--baseline mean: one of mask, pad, zero"),
        ({"baseline": "mask", "method": "integrated-gradients"}, "tokenizer has no mask token; zero needs none"),
        ({"word": 1}, "--word 1: is for probes that tag words"),
        ({"seed": -1}, "--seed -1: at least 0"),
    ):
        with pytest.raises(SpecError, match=said.replace("(", "\\(")) as error:
            one(made, "label", **wrong)
        assert "\n" not in str(error.value)
    with pytest.raises(SpecError, match="--class 3: is of classes and labels; this probe says a number"):
        one(made, "score", answer=3)
    for text in ("[CLS] [SEP]", "[PAD]"):
        with pytest.raises(InputError, match="text 1: must have a word to explain by"):
            one(made, "label", text=text)
    with pytest.raises(InputError, match="must not be empty"):
        one(made, "label", text="  ")
    with pytest.raises(ProbekitError, match=r"there is no|must be"):
        explain(folder / "nothing", TEXT, model=model, **OPTIONS)


# Tags of words


@pytest.fixture(scope="module")
def tagged(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tags")
    rng = np.random.default_rng(0)
    words = [list(rng.choice(["good", "bad", "film", "plot", "a"], size=int(rng.integers(3, 8)))) for _ in range(60)]
    tags = [["ADJ" if w in ("good", "bad") else "NOUN" if w in ("film", "plot") else "DET" for w in of] for of in words]
    data = pd.DataFrame({"words": words, "pos": tags})
    cache = extract(tiny_model, data, out=folder / "c.h5", dtype="float32", tokens=True, token_dtype="float32")
    save(probe(cache, "pos", layers=1), folder / "probes")
    return folder / "probes"


def test_the_tag_of_a_word_is_explained(tagged, tiny_model):
    found = explain(tagged, "a good film", model=tiny_model, word=1, method="occlusion", **OPTIONS)[0]
    assert (found.of_word, found.answer, found.predicted) == (1, "ADJ", "ADJ")
    assert int(np.argmax(found.first.words)) == 1  # the word itself is masked, not deleted
    assert explain(tagged, "a good film", model=tiny_model, **OPTIONS)[0].of_word == 0
    with pytest.raises(SpecError, match="--word 3: a word of the text that was read, from 0 to 2"):
        explain(tagged, "a good film", model=tiny_model, word=3, **OPTIONS)


# Words x layers


def test_words_by_layers_are_what_each_layers_probe_says(made, tmp_path):
    folder, model, cache = made
    found = explain_layers(folder / "label", TEXT, cache, model=model, **OPTIONS)
    assert found.layers == (0, 1, 2)
    for k, layer in enumerate(found.layers):
        run = probe(cache, "label", layers=layer, refit=False)
        save(run, tmp_path / str(layer))
        alone = explain(tmp_path / str(layer), TEXT, answer=found.answer, model=model, method="occlusion", **OPTIONS)[0]
        np.testing.assert_allclose(found.importance[k], alone.first.words, atol=1e-5)
        assert found.value[k] == pytest.approx(alone.value, abs=1e-5)
        assert found.score[k] == pytest.approx(run.table["score"].iloc[0])
    size = np.abs(found.importance)
    np.testing.assert_allclose(found.share, size[:, list(found.baseline_words)].sum(1) / size.sum(1))
    assert found.chance == pytest.approx(2 / 7)
    by_gradient = explain_layers(folder / "label", TEXT, cache, method="gradient-x-input", model=model, **OPTIONS)
    alone = one(made, "label", method="gradient-x-input")
    np.testing.assert_allclose(by_gradient.importance[1], alone.first.words, atol=1e-5)


def test_the_command_writes_what_every_layer_says(made, tmp_path):
    folder, model, cache = made
    out = tmp_path / "w.csv"
    words = ["explain", str(folder / "label"), "--text", TEXT, "--model", str(model), "--threads", "1"]
    assert run([*words, "--by-layer", str(cache.path), "--method", "occlusion", "--out", str(out)]) == 0
    found = explain_layers(folder / "label", TEXT, cache, model=model, **OPTIONS)
    rows = pd.read_csv(tmp_path / "w.layers.csv")
    np.testing.assert_allclose(rows["importance"], found.importance.ravel(), atol=1e-5)
    assert rows["layer"].tolist() == [layer for layer in found.layers for _ in WORDS]
    np.testing.assert_allclose(rows["words_alone"][: len(WORDS)], found.baseline, atol=1e-5)
    assert rows["in_share"].sum() == len(found.layers) * len(found.baseline_words)
    assert run([*words, "--by-layer", str(cache.path), "--out", str(tmp_path / "w.csv")]) == 2


def test_the_text_baselines_words_are_those_of_scikit_learn(made):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    folder, model, cache = made
    found = explain_layers(folder / "label", TEXT, cache, model=model, **OPTIONS)
    train_rows = np.flatnonzero(np.array(cache.column("split")) == "train")
    words = TfidfVectorizer(token_pattern=r"(?u)\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True)
    X = words.fit_transform([cache.texts[i] for i in train_rows])
    y = np.array(cache.column("label"))[train_rows]
    new = words.transform([TEXT, *(without(WORDS, i) for i in range(len(WORDS)))])
    ways = []
    for C in (0.1, 1.0, 10.0, 100.0, 1000.0):
        fitted = LogisticRegression(C=C, max_iter=1000).fit(X, y)
        scores = fitted.decision_function(new) * (1 if found.answer == "pos" else -1)
        ways.append(np.abs(scores[0] - scores[1:] - found.baseline).max() / np.abs(scores).max())
    assert min(ways) < 1e-3
    top = np.sort(np.argsort(-np.abs(found.baseline), kind="stable")[:2])
    assert found.baseline_words == tuple(top)


def test_a_cache_that_was_read_otherwise_is_refused(made, tmp_path):
    folder, model, _ = made
    other = extract(model, table(40), out=tmp_path / "c.h5", prompt="the {text}", dtype="float32")
    with pytest.raises(SpecError, match=r"--by-layer c\.h5: must have the prompt that the probe was fitted on: None"):
        explain_layers(folder / "label", TEXT, other, model=model, **OPTIONS)


# The command


def test_the_command_prints_json_and_writes_a_row_for_each_word(made, tmp_path, capsys):
    folder, model, _ = made
    out, page, plot = tmp_path / "w.csv", tmp_path / "w.html", tmp_path / "w.svg"
    files = ["--out", str(out), "--html", str(page), "--plot", str(plot)]
    words = ["explain", str(folder / "label"), "--text", TEXT, "--model", str(model), "--threads", "1"]
    assert run([*words, "--json", *files]) == 0
    found = one(made, "label")
    assert json.loads(capsys.readouterr().out) == found.json()
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["word"] for row in rows] == WORDS
    np.testing.assert_allclose([float(row["occlusion"]) for row in rows], found.first.words, rtol=1e-5)
    np.testing.assert_allclose([float(row["lrp"]) for row in rows], found.importances[1].words, rtol=1e-4)
    assert TEXT in page.read_text() or "very" in page.read_text()
    assert plot.read_bytes().startswith(b"<?xml")
    assert run([*words, *files]) == 2  # nothing is overwritten
    assert "--overwrite" in capsys.readouterr().err


def test_of_data_the_mean_of_every_word_is_said(made, tmp_path, capsys):
    folder, model, _ = made
    texts = ["good film", "a Good plot", "bad film"]
    data = tmp_path / "d.csv"
    pd.DataFrame({"text": texts}).to_csv(data, index=False)
    out = tmp_path / "words.csv"
    words = ["explain", str(folder / "kind"), str(data), "--model", str(model), "--threads", "1", "--out", str(out)]
    assert run([*words]) == 0
    assert "speak" in capsys.readouterr().out
    rows = pd.read_csv(out)
    assert set(rows["answer"]) == {"a", "b", "c"}
    each = [one(made, "kind", text=text, answer="b", method="occlusion") for text in texts]
    good = [each[0].first.words[0], each[1].first.words[1]]
    row = rows[(rows["answer"] == "b") & (rows["word"] == "good")].iloc[0]
    assert (row["n"], row["n_texts"]) == (2, 2)
    assert row["mean_importance"] == pytest.approx(np.mean(good), abs=1e-5)
    assert row["sd"] == pytest.approx(np.std(good, ddof=1), abs=1e-5)


def test_bad_input_ends_before_the_work(made, tmp_path, capsys):
    folder, model, _ = made
    probes = str(folder / "label")
    there = tmp_path / "there.csv"
    there.write_text("x")
    for words, said in (
        ([probes], "needs either --text or DATA"),
        ([probes, "--text", "good", "--out", "x.txt"], "must end in .csv"),
        ([probes, "--text", "good", "--html", "x.pdf"], "must end in .html"),
        ([probes, "--text", "good", "--out", str(there)], "--overwrite"),
        ([probes, "--text", "good", "--layers", "1"], "goes with --by-layer"),
        ([probes, "--text", "good", "--by-layer", str(tmp_path / "no.h5")], "there is no such cache"),
        ([probes, "--text", "a", "--text", "b", "--by-layer", str(there)], "one text at a time; got 2 texts"),
        ([str(tmp_path / "no"), "--text", "good"], "there is no such file or folder"),
    ):
        assert run(["explain", *words, "--model", str(model)]) == 2
        err = capsys.readouterr().err.strip().splitlines()
        assert said in err[-1]
        assert "Traceback" not in " ".join(err)
    assert there.read_text() == "x"
