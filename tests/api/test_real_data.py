"""Real sentences, the real MiniLM, the two commands: what a user sees."""

from __future__ import annotations

import csv
import io

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit import open_cache
from probekit.cli import run
from tests.inputs.cases import DATA, needs_data
from tests.packaged import minilm


@needs_data
def test_sst2_with_minilm(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name, source, n in (("train", "dev", 872), ("test", "test", 400)):
        lines = (DATA / "sst2" / f"{source}.tsv").read_text(encoding="utf-8").splitlines()[: n + 1]
        (tmp_path / f"{name}.tsv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    assert run(["extract", str(minilm()), "train.tsv", "test.tsv", "--out", "c.h5"]) == 0
    assert run(["probe", "c.h5", "--target", "label", "--layers", "all", "--out", "l.csv", "--jobs", "1"]) == 0
    out, err = capfd.readouterr()
    assert "Warning" not in err
    assert "best on validation" in out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "l.csv").read_text(encoding="utf-8"))))
    assert [row["layer"] for row in rows] == list("0123456")
    (chosen,) = [row for row in rows if row["selected"] == "True"]
    assert float(chosen["val_score"]) == max(float(row["val_score"]) for row in rows)
    with open_cache("c.h5") as cache:
        train = cache.column("split") == "train"
        X, y = cache.layer(6), cache.column("label")
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        own = GridSearchCV(pipeline, {"logisticregression__C": [1e-3, 1e-2, 0.1, 1]}, scoring="neg_log_loss", cv=5)
        accuracy = own.fit(X[train], y[train]).best_estimator_.score(X[~train], y[~train])
    # 700 of 872 sentences train here and all of them above, so the two need not be equal.
    assert float(rows[6]["score"]) == pytest.approx(accuracy, abs=0.04)
    assert 0.7 < float(rows[6]["score"]) < 0.85
