"""Chat templates: what they render is kept, blanks are treated as they treat them, and they can't run wild."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from probekit import extract, predict
from probekit.cli import run
from probekit.errors import SpecError
from probekit.models.chat import rendered_chats
from probekit.models.prompts import make_template
from probekit.models.source import locate
from probekit.models.tokens import encode, load_tokenizer
from tests.models.families import build  # noqa: F401  (torch before anything forks)

CHAT = "{% for m in messages %}{{ 'the ' + m['content'] + ' film ' }}{% endfor %}"


@pytest.fixture
def with_template(tmp_path, tiny_model):
    def make(template, name="chat"):
        folder = tmp_path / name
        shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
        (folder / "chat_template.jinja").write_text(template)
        return folder

    return make


def tokenizer_of(folder):
    return load_tokenizer(locate(str(folder)))


CLOCK = "{{ strftime_now('%f') }} " + CHAT  # microseconds: never twice the same


def test_a_clock_changes_nothing(tmp_path, with_template, tiny_data, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = with_template(CLOCK)
    first = extract(model, tiny_data, out="a.h5", chat_template=True, dtype="float32")
    again = extract(model, tiny_data, out="a.h5", chat_template=True, dtype="float32")
    assert again.fingerprint == first.fingerprint
    other = extract(model, tiny_data, out="b.h5", chat_template=True, dtype="float32")
    assert other.spec["rendered"] != first.spec["rendered"]
    assert other.fingerprint != first.fingerprint
    assert run(["probe", "a.h5", "--target", "label", "--layers", "2", "--save-probes", "heads"]) == 0
    (probe,) = (tmp_path / "heads").glob("*.skops")
    assert json.loads(probe.with_suffix(".json").read_text())["cache"]["rendered"] == first.spec["rendered"]
    from probekit.saved import load_probe

    found = predict(probe, first.texts[:6], model=model)
    expected = load_probe(probe).estimator.predict_proba(first.layer(2)[:6])
    np.testing.assert_allclose(found.probability, expected, atol=1e-6)


def test_an_unfinished_cache_goes_on_with_what_was_rendered(tmp_path, with_template, tiny_data, monkeypatch):
    from probekit.extraction import run as run_module
    from probekit.store import partial_path, stored_spec

    monkeypatch.chdir(tmp_path)
    model = with_template(CLOCK)

    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            extract(model, tiny_data, out="a.h5", chat_template=True)
    begun = stored_spec(partial_path(tmp_path / "a.h5"))
    done = extract(model, tiny_data, out="a.h5", chat_template=True)
    assert done.spec["rendered"] == begun.spec["rendered"]
    assert done.fingerprint == begun.fingerprint


@pytest.mark.parametrize("filters", ["", "| trim", ".lstrip()", ".rstrip()", ".strip()"])
@pytest.mark.parametrize("prompt", [None, "very {text}", " {text} fine"])
def test_blanks_are_treated_as_the_template_treats_them(with_template, filters, prompt):
    content = f"(m['content'] {filters})" if "|" in filters else f"m['content']{filters}"
    tokenizer = tokenizer_of(with_template("{% for m in messages %}{{ 'a ' + " + content + " + ' b ' }}{% endfor %}"))
    template = make_template(prompt, chat=True, tokenizer=tokenizer)
    for text in ("good film", "  good film", "good film \n", "\tgood film  ", "\u00a0good film\u00a0"):
        message = text if prompt is None else prompt.replace("{text}", text)
        expected = tokenizer.apply_chat_template([{"role": "user", "content": message}], tokenize=False)
        assert template.render(text) == expected
        start, stop = template.span(text)
        assert expected[start:stop].strip() == text.strip()
        (offsets,) = encode(tokenizer, [text], max_length=32, ids=["1"], template=template).offsets
        of_text = [text[a:b] for a, b in offsets.tolist() if 0 <= a < b <= len(text)]
        assert [part for part in of_text if part.strip()] == ["good", "film"]


WILD = {
    "raises": ("{{ raise_exception('a system message is needed') }}", "a system message is needed"),
    "an escape sequence": ("{{ raise_exception('\x1b[31mred') }}", "red"),
    "no template": ("{% for %}", "TemplateSyntaxError"),
    "loops": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "did not end|seconds"),
    "fills the memory": ("{{ ('a' * 10**10) | length }}", "MemoryError|did not end"),
    "doubles": (
        "{% set x = namespace(t='aaaaaaaa') %}{% for i in range(60) %}{% set x.t = x.t ~ x.t %}{% endfor %}",
        "MemoryError|did not end",
    ),
    "is long": ("{% for i in range(90000) %}aaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}", "more than 1,000,000 characters"),
    "drops the message": ("hello", "exactly once"),
    "doubles the message": (CHAT + CHAT, "exactly once"),
    "escapes the message": (CHAT.replace("m['content']", "(m['content'] | e)"), "exactly once"),
    "quotes the message": (CHAT.replace("m['content']", "(m['content'] | tojson)"), "exactly once"),
    "joins the message": (CHAT.replace("m['content']", "m['content'].split() | join(' ')"), "exactly once"),
    "cuts some blanks": (CHAT.replace("m['content']", "m['content'].strip('\\t')"), "outer blanks"),
    "cuts others": (CHAT.replace("m['content']", "m['content'].strip(' ')"), "outer blanks"),
    "lowers the message": (CHAT.replace("m['content']", "(m['content'] | lower)"), "the same around every text"),
    "cuts long messages": (CHAT.replace("m['content']", "m['content'][:50]"), "the same around every text"),
    "says how long": (CHAT + "{{ messages[0]['content'] | length }}", "the same around every text"),
    "changes the message": (CHAT.replace("m['content']", "m['content'].upper()"), "exactly once"),
}


@pytest.mark.parametrize("name", WILD)
def test_a_wild_template_is_one_line(with_template, name, monkeypatch):
    from probekit.models import chat

    monkeypatch.setattr(chat, "SECONDS", 2)
    template, message = WILD[name]
    with pytest.raises(SpecError, match=message) as caught:
        make_template(None, chat=True, tokenizer=tokenizer_of(with_template(template)))
    assert "\n" not in str(caught.value)


def test_a_process_of_its_own_gives_what_the_tokenizer_gives(with_template):
    tokenizer = tokenizer_of(with_template(CHAT))
    message = [{"role": "user", "content": "good"}]
    expected = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert rendered_chats(tokenizer, ["good"]) == [expected]


def test_a_template_that_treats_some_of_the_texts_in_another_way(with_template):
    tokenizer = tokenizer_of(with_template("{% if 'dull' in messages[0]['content'] %}oh {% endif %}" + CHAT))
    assert make_template(None, chat=True, tokenizer=tokenizer, texts=["good film", "bad plot"]).before == "the "
    with pytest.raises(SpecError, match=r"the same around every text.*'a dull film'"):
        make_template(None, chat=True, tokenizer=tokenizer, texts=["good film", "a dull film"])
