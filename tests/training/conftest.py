import numpy as np
import pytest

from probekit.training import run
from tests.tiny import WORDS
from tests.training.trained import chosen_once, made, table


@pytest.fixture(autouse=True)
def probes_fitted_once(monkeypatch):
    monkeypatch.setattr(run, "choose_layers", chosen_once)


@pytest.fixture(scope="session")
def given(tmp_path_factory, tiny_model):
    """80 rows, all labels there."""
    return made(tmp_path_factory.mktemp("given"), tiny_model, table())


@pytest.fixture(scope="session")
def halves(tmp_path_factory, tiny_model):
    """The first half has "label" and "score", the second "kind"; eight rows have no label at all, eight have all."""
    data = table(120).drop(columns="topics")
    data["kind"] = data["kind"].where(np.arange(120) >= 48, None)
    data["label"] = data["label"].where(np.arange(120) < 64, None)
    data["score"] = data["score"].where((np.arange(120) >= 8) & (np.arange(120) < 64), np.nan)
    data.loc[8:15, ["label", "kind", "score"]] = [None, None, np.nan]
    return made(tmp_path_factory.mktemp("halves"), tiny_model, data)


@pytest.fixture(scope="session")
def tagged(tmp_path_factory, tiny_model):
    """Sentences in which film and plot are things."""
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(50):
        for word in rng.choice(WORDS, size=int(rng.integers(3, 9))):
            lines += [f"{word} {'B-thing' if word in ('film', 'plot') else 'O'}"]
            if word == "film":
                lines += ["actor I-thing"]
        lines.append("")
    folder = tmp_path_factory.mktemp("tagged")
    (folder / "train.conll").write_text("\n".join(lines))
    return made(folder, tiny_model, folder / "train.conll")
