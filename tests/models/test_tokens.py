"""Texts inside prompts: where their tokens are, what truncation takes, and one beginning of text only."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram
from transformers import PreTrainedTokenizerFast

from probekit.errors import InputError, SpecError
from probekit.models import locate
from probekit.models.prompts import make_template, text_range
from probekit.models.tokens import choose_max_length, encode, load_tokenizer
from tests.packaged import minilm, smollm2

TEXTS = [
    "A plain sentence.",
    "x",
    "Größe, naïve café",
    "日本語のテキスト",
    "عربى ونص",
    "emoji 😀👩‍👩‍👧 inside",
    "🇯🇵",
    "  blanks around  ",
    "https://example.org/a?b=c&d",
    "Classify {this}: the prompt's own words",
]
CORPUS = [*TEXTS, "Classify the sentiment of this text please", "the answer is"] * 3
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def byte_level_bpe() -> PreTrainedTokenizerFast:
    """Like Llama 3's: byte-level BPE that puts a beginning of text before everything, and a chat template with one."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=CHAT, model_max_length=512
    )


def unigram() -> PreTrainedTokenizerFast:
    """Like T5's: SentencePiece's Unigram with an end of text."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


@cache
def smollm2_tokenizer() -> PreTrainedTokenizerFast:
    """Read from the GGUF once, which takes seconds."""
    return load_tokenizer(locate(smollm2()))


TOKENIZERS = {
    "wordpiece": lambda: load_tokenizer(locate(minilm())),
    "real byte-level BPE": smollm2_tokenizer,
    "byte-level BPE": byte_level_bpe,
    "unigram": unigram,
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def encoded(tokenizer, before="", after="", *, chat=False, max_length=200, texts=TEXTS):
    template = make_template(f"{before}{{text}}{after}", chat=chat, tokenizer=tokenizer)
    names = [str(i) for i in range(len(texts))]
    return template, encode(tokenizer, texts, max_length=max_length, ids=names, template=template)


def test_without_a_prompt_the_ids_are_the_tokenizers_own(tokenizer):
    _, found = encoded(tokenizer)
    for text, ids, special in zip(TEXTS, found.ids, found.special, strict=True):
        own = tokenizer(text)
        assert ids.tolist() == own["input_ids"]
        masked = tokenizer(text, return_special_tokens_mask=True)["special_tokens_mask"]
        assert (special | ~np.array(masked, dtype=bool)).all()
    assert not found.truncated.any()


@pytest.mark.parametrize(
    ("before", "after"), [("Classify: ", ""), ("", " Answer:"), ("Text:\n", "\nMood:"), ("“", "”")]
)
def test_the_text_is_found_inside_a_prompt(tokenizer, before, after):
    template, found = encoded(tokenizer, before, after)
    for text, ids, (first, last) in zip(TEXTS, found.ids, found.text_range, strict=True):
        offsets = tokenizer(template.render(text), return_offsets_mapping=True)["offset_mapping"]
        assert len(ids) == len(offsets)
        start, stop = template.span(text)
        inside = {i for i, (a, b) in enumerate(offsets) for c in range(a, b) if start <= c < stop}
        assert inside
        assert (first, last) == (min(inside), max(inside) + 1)
        covered = template.render(text)[offsets[first][0] : offsets[last - 1][1]]
        assert text.strip() in covered


def test_truncation_takes_the_end_of_the_text_and_leaves_the_prompt(tokenizer):
    long = "word after word " * 40
    whole = encoded(tokenizer, "Read: ", " Done.", texts=[long, "short"])[1]
    cut = encoded(tokenizer, "Read: ", " Done.", texts=[long, "short"], max_length=30)[1]
    assert cut.truncated.tolist() == [True, False]
    assert len(cut.ids[0]) == 30
    first, last = cut.text_range[0]
    tail = len(whole.ids[0]) - whole.text_range[0][1]
    assert cut.ids[0][:last].tolist() == whole.ids[0][:last].tolist()
    assert cut.ids[0][last:].tolist() == whole.ids[0][len(whole.ids[0]) - tail :].tolist()
    assert first == whole.text_range[0][0]
    with pytest.raises(SpecError, match=r"--max-length: the prompt alone takes \d+ tokens; got 3"):
        encoded(tokenizer, "Read all of this first: ", " Done.", max_length=3)


def test_a_chat_has_exactly_one_beginning_of_text():
    tokenizer = byte_level_bpe()
    assert tokenizer("a")["input_ids"][0] == 0
    template, found = encoded(tokenizer, "Mood of: ", "?", chat=True)
    for text, ids in zip(TEXTS, found.ids, strict=True):
        assert (ids == 0).sum() == 1
        assert ids[0] == 0
        messages = [{"role": "user", "content": f"Mood of: {text}?"}]
        own = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=True)
        assert ids.tolist() == own["input_ids"]
    assert template.render("X") == "<s>[user] Mood of: X?</s>[assistant] "


def test_the_real_models_chat_template():
    tokenizer = smollm2_tokenizer()
    _, found = encoded(tokenizer, chat=True)
    for text, ids, (first, last) in zip(TEXTS, found.ids, found.text_range, strict=True):
        messages = [{"role": "user", "content": text}]
        own = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=True)
        assert ids.tolist() == own["input_ids"]
        assert tokenizer.decode(ids[first:last]).strip() == text.strip()


def test_a_model_without_chat_template_says_so():
    with pytest.raises(SpecError, match="--chat-template: needs a tokenizer with a chat template"):
        make_template(None, chat=True, tokenizer=unigram())


def test_a_chat_template_that_repeats_the_message_is_refused():
    tokenizer = byte_level_bpe()
    tokenizer.chat_template = "{{ messages[0]['content'] }} {{ messages[0]['content'] }}"
    with pytest.raises(SpecError, match="must hold the message exactly once"):
        make_template(None, chat=True, tokenizer=tokenizer)


def test_words_are_the_tokenizers_words(tokenizer):
    _, found = encoded(tokenizer, texts=["two words", "unbelievably"])
    for text, word, special in zip(["two words", "unbelievably"], found.word, found.special, strict=True):
        own = [-1 if w is None else w for w in tokenizer(text).word_ids()]
        assert word.tolist() == own
        assert (word[special] == -1).all()


def test_limits():
    tokenizer = unigram()
    assert choose_max_length(None, tokenizer, 64) == 64
    assert choose_max_length(None, tokenizer, None) == 512
    with pytest.raises(SpecError, match="this model reads 1 to 64 tokens; got 65"):
        choose_max_length(65, tokenizer, 64)
    with pytest.raises(SpecError, match="must leave room beside 1 special tokens"):
        encoded(tokenizer, max_length=1)
    bare = Tokenizer(BPE())
    empty = PreTrainedTokenizerFast(tokenizer_object=bare)
    with pytest.raises(InputError, match="example 0: must give at least one token"):
        encode(empty, ["?"], max_length=5, ids=["0"])


def test_text_range_of_characters_in_several_tokens():
    assert text_range([(0, 0), (0, 3), (3, 4), (3, 4), (4, 6), (0, 0)], (3, 4)) == (2, 4)
    assert text_range([(0, 2), (2, 4)], (3, 4)) == (1, 2)
    assert text_range([(0, 2)], (2, 2)) == (0, 0)
