"""Words and their tokens: by characters, for four kinds of tokenizer; and long texts in overlapping pieces."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probekit.errors import SpecError
from probekit.models.alignment import one_copy, word_of_tokens
from probekit.models.prompts import Template, window_text
from probekit.models.tokens import encode
from tests.models.test_tokens import TOKENIZERS

DROPPED_BY_BERT = ("Mn", "Cc", "Cf")  # accents, control characters, joiners
SENTENCES = {
    "contractions": ["You", "ca", "n't", "say", "it", "'s", "John", "'", "s", "."],
    "typographic": ["ca", "n’t", "“", "naïve", "”", "—", "‘", "t", "was", "…"],
    "emoji": ["so", "😀", "👩‍👩‍👧", "😀👍🏽", "🇯🇵", "🇩🇪🇫🇷", "❤️", "1️⃣", "!"],
    "web": ["@user_1", ":", "https://ex.org/a?b=c&d#e", "#tag", "a@b.de", ":-)", "RT"],
    "CJK": ["日本語", "の", "テキスト", "。", "한국어", "中文", "𠮷野家"],
    "Arabic": ["عربى", "ونص", "مُدَرِّس", "،", "שָׁלוֹם"],
    "accents": ["İstanbul", "Größe", "STRASSE", "ﬁn", "cafe\u0301", "Å", "①", "ｗｉｄｅ"],
    "long": ["the", "a" * 300, "x1" * 150, "日" * 300, "end"],
    "punctuation": [".", "...", "?!", "-", "--", "``", "''", "(", ")", "$", "%"],
    "with spaces": ["New York", "is", "1 000 000", "a  b", "no\u00a0break", " before", "after ", "ok"],
    "one": ["x"],
    "equal": ["a", "a", "aa", "a", "a"],
    "special tokens": ["[SEP]", "</s>", "<s>", "<|im_start|>", "[MASK]", "end"],
}
ORDINARY = st.characters(exclude_categories=("Cs", "Cn", "Co"), exclude_characters="\0")
ODD = st.sampled_from("😀👩\u200d👧🇯🇵日本عر'’n \u0301\u0345İßﬁ\u00a0\t\n▁Ġ\x07…@#/")
WORDS = st.lists(
    st.one_of(st.text(ORDINARY, min_size=1, max_size=7), st.text(ODD, min_size=1, max_size=6)).filter(
        lambda word: not word.isspace()
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    made = TOKENIZERS[request.param]()
    made.kind = request.param
    return made


def read(tokenizer, words, *, max_length=5000, stride=None, template=None):
    """The one text's ids and offsets, the word of each token, and where pieces are cut."""
    how = {"max_length": max_length, "stride": stride, "template": template or Template()}
    found = encode(tokenizer, [" ".join(words)], ids=["0"], **how)
    return found.ids[0], found.offsets[0], word_of_tokens(found.offsets[0], words), found.cuts[0]


def owners(words):
    """Of every character of the text: whose it is, -1 for the blanks between words."""
    return [owner for w, word in enumerate(words) for owner in ([w] * len(word) + [-1])][:-1]


def by_characters(offsets, words):
    """The first word that has one of a token's characters."""
    of = owners(words)
    found = [[of[c] for c in range(max(a, 0), min(b, len(of))) if of[c] >= 0] for a, b in offsets]
    return [inside[0] if inside else -1 for inside in found]


def check_words(tokenizer, words):
    """What holds for any words; returns the word of each token and its characters."""
    text = " ".join(words)
    own = tokenizer(text, return_offsets_mapping=True)
    ids, offsets, word, _ = read(tokenizer, words)
    assert ids.tolist() == own["input_ids"]
    assert offsets.tolist() == [list(pair) for pair in own["offset_mapping"]]
    assert word.dtype == np.int32
    assert word.tolist() == by_characters(own["offset_mapping"], words)
    of_words = word[word >= 0]
    assert (np.diff(of_words) >= 0).all()
    for w in range(len(words)):
        at = np.flatnonzero(word == w)
        assert not len(at) or at[-1] - at[0] + 1 == len(at)  # nothing in between
        assert {owners(words)[c] for i in at for c in range(*offsets[i])} <= {w, -1}  # no other word's characters
    for i in np.flatnonzero(word < 0):  # blanks, and special tokens, which have no characters
        assert not text[slice(*offsets[i])].strip(" ")
    return word, offsets


@pytest.mark.parametrize("name", SENTENCES)
def test_every_word_gets_the_tokens_of_its_characters(tokenizer, name):
    words = SENTENCES[name]
    text = " ".join(words)
    word, offsets = check_words(tokenizer, words)
    start = 0
    for w, own in enumerate(words):
        covered = {c for i in np.flatnonzero(word == w) for c in range(*offsets[i])}
        assert covered
        for c in set(range(start, start + len(own))) - covered:
            assert tokenizer.kind == "wordpiece", (own, c)
            assert text[c].isspace() or unicodedata.category(text[c]) in DROPPED_BY_BERT, (own, c)
        start += len(own) + 1


@pytest.mark.parametrize("name", [name for name in SENTENCES if name != "special tokens"])
def test_a_words_tokens_spell_it(tokenizer, name):
    """Without offsets: what the tokens themselves say."""
    words = SENTENCES[name]
    ids, _, word, _ = read(tokenizer, words)
    for w, own in enumerate(words):
        of_word = ids[word == w]
        pieces = tokenizer.convert_ids_to_tokens(of_word)
        if tokenizer.unk_token in pieces:
            continue
        if tokenizer.kind == "wordpiece":
            spelt = "".join(piece.removeprefix("##") for piece in pieces)
            own = "".join(tokenizer.backend_tokenizer.normalizer.normalize_str(own).split())  # noqa: PLW2901
        elif tokenizer.kind == "unigram":
            spelt, own = "".join(pieces).replace("▁", ""), own.replace(" ", "")  # noqa: PLW2901
        else:
            spelt = tokenizer.decode(of_word, clean_up_tokenization_spaces=False)
            spelt, own = spelt.strip(" "), own.strip(" ")  # noqa: PLW2901
        assert spelt == own


@pytest.mark.parametrize("tokenizer", ["wordpiece", "unigram"], indirect=True)
@pytest.mark.parametrize("name", SENTENCES)
def test_the_words_are_hugging_faces_where_it_reads_the_same(tokenizer, name):
    """Byte-level vocabularies have other tokens for a word alone than after a blank, so there it reads other ids."""
    words = SENTENCES[name]
    ids, offsets, word, _ = read(tokenizer, words)
    split = tokenizer(words, is_split_into_words=True)
    if split["input_ids"] != ids.tolist():
        assert (tokenizer.kind, name) in {("unigram", "with spaces"), ("unigram", "special tokens")}
        return
    expected = [-1 if w is None else w for w in split.word_ids()]
    text = " ".join(words)
    # A token of Unigram that is the blank alone is no word's here; Hugging Face gives it to the word that follows.
    blank = [a < b and text[a:b].isspace() for a, b in offsets.tolist()]
    assert tokenizer.kind == "unigram" or not any(blank)
    assert word.tolist() == [-1 if skip else w for w, skip in zip(expected, blank, strict=True)]


def test_words_that_the_tokenizer_drops(tokenizer):
    words = ["ok", "\u200d", "then", "\x07\x7f", "\u0301", "\ufeff", "end"]
    word, _ = check_words(tokenizer, words)
    lost = {1, 3, 4, 5} if tokenizer.kind == "wordpiece" else set()
    assert set(range(len(words))) - set(word.tolist()) == lost
    word, _ = check_words(tokenizer, words[1:2])  # nothing but special tokens, or all of them
    assert (0 in word) == (tokenizer.kind != "wordpiece")


def test_words_that_are_cut_off_have_no_token(tokenizer):
    words = ["first", *("word" for _ in range(40)), "last"]
    whole, *_ = read(tokenizer, words)
    ids, offsets, word, cuts = read(tokenizer, words, max_length=12)
    assert len(ids) == 12 < len(whole)
    assert cuts == ()
    assert word.tolist() == by_characters(offsets.tolist(), words)
    seen = sorted(set(word.tolist()) - {-1})
    assert seen == list(range(len(seen)))
    assert 0 < len(seen) < len(words) - 1


@pytest.mark.parametrize(
    ("before", "after"), [("Tag these words: ", ""), ("", " are tagged so:"), ("[", "]"), ("x", "y"), ("a b\n", "\nc")]
)
@pytest.mark.parametrize("name", ["contractions", "emoji", "with spaces"])
def test_what_a_prompt_puts_around_is_no_words(tokenizer, name, before, after):
    words = SENTENCES[name]
    _, offsets, word, _ = read(tokenizer, words, template=Template(before, after))
    rendered = f"{before}{' '.join(words)}{after}"
    own = tokenizer(rendered, return_offsets_mapping=True)["offset_mapping"]
    shifted = [(a - len(before), b - len(before)) for a, b in own]
    assert offsets.tolist() == [list(pair) for pair in shifted]
    assert word.tolist() == by_characters(shifted, words)
    assert set(word.tolist()) >= set(range(len(words)))


def test_offsets_as_they_come():
    def found(*offsets, words=("ab", "c d", "e")):  # the text is "ab c d e"
        return word_of_tokens(np.array(offsets, dtype=np.int32).reshape(-1, 2), words).tolist()

    assert found((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)) == [0, 0, -1, 1, 1, 1, -1, 2]
    assert found((2, 4), (4, 6), (6, 8)) == [1, 1, 2]  # with the blank before
    assert found((0, 3), (3, 7)) == [0, 1]  # with the blank after
    assert found((0, 8), (1, 4), (2, 8), (5, 8)) == [0, 0, 1, 1]  # over several words: the first
    assert found((1, 1), (0, 0), (3, 3), (8, 8)) == [-1] * 4  # no characters
    assert found((-9, -4), (-3, 0), (-1, 1), (7, 10), (8, 9), (12, 15)) == [-1, -1, 0, 2, -1, -1]  # a prompt
    assert found((0, 1), (0, 1), (0, 1)) == [0, 0, 0]  # bytes of one character
    assert found() == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=WORDS)
def test_any_words(tokenizer, words):
    check_words(tokenizer, words)


# Pieces.


@st.composite
def long_texts(draw):
    """Tokens before, of and after a text; how long a piece may be, and what it shares with the next."""
    before, text, after = draw(st.integers(0, 4)), draw(st.integers(0, 60)), draw(st.integers(0, 4))
    room = draw(st.integers(1, 20))
    return before, text, after, before + after + room, draw(st.integers(0, room - 1))


@given(long_texts())
def test_pieces_hold_all_of_the_text_and_all_around_it(case):
    before, text, after, max_length, stride = case
    n = before + text + after
    read_of, cuts = window_text(n, (before, before + text), max_length, stride=stride)
    if n <= max_length:
        assert (read_of.tolist(), cuts) == (list(range(n)), ())
        return
    pieces = [piece.tolist() for piece in np.split(read_of, cuts)]
    assert len(pieces) == len(cuts) + 1 > 1
    inner = []
    for piece in pieces:
        assert len(piece) <= max_length
        assert piece[:before] == list(range(before))
        assert piece[len(piece) - after :] == list(range(before + text, n))
        inner.append(piece[before : len(piece) - after])
        assert inner[-1] == list(range(inner[-1][0], inner[-1][-1] + 1))
    assert all(len(piece) == max_length for piece in pieces[:-1])
    assert (inner[0][0], inner[-1][-1]) == (before, before + text - 1)
    for left, right in pairwise(inner):
        assert len(set(left) & set(right)) == stride
        assert right[0] == left[-1] + 1 - stride
        assert right[-1] > left[-1]


def test_pieces_that_can_not_be():
    for stride in (4, 5, -1):
        message = rf"^--stride {stride}: 0 to 3, fewer than the tokens of a text that fit in at once$"
        with pytest.raises(SpecError, match=message):
            window_text(20, (1, 19), 6, stride=stride)
    assert window_text(20, (1, 19), 20, stride=99)[1] == ()  # nothing to share
    for n, within in ((20, (3, 17)), (20, (0, 0))):
        with pytest.raises(SpecError, match=r"^--max-length: the prompt alone takes (6|20) tokens; got 6$"):
            window_text(n, within, 6, stride=0)


def test_a_stride_is_checked_even_if_every_text_fits(tokenizer):
    room = 10 - tokenizer.num_special_tokens_to_add()
    read(tokenizer, ["x"], max_length=10, stride=room - 1)
    with pytest.raises(SpecError, match=rf"^--stride {room}: 0 to {room - 1}, fewer than"):
        read(tokenizer, ["x"], max_length=10, stride=room)


@pytest.mark.parametrize("stride", [0, 1, 5])
@pytest.mark.parametrize("around", [("", ""), ("Tag: ", " Now:")])
def test_a_long_text_in_pieces(tokenizer, stride, around):
    words = [f"{word}{i}" for i, word in enumerate(["You", "can't", "日本", "😀", "paraphrase,"] * 6)]
    template = Template(*around)
    whole, all_offsets, all_words, _ = read(tokenizer, words, template=template)
    ids, offsets, word, cuts = read(tokenizer, words, template=template, max_length=40, stride=stride)
    assert len(cuts) > 1
    first, stop = (all_words >= 0).argmax(), len(whole) - (all_words[::-1] >= 0).argmax()
    pieces = list(zip(np.split(ids, cuts), np.split(offsets, cuts), np.split(word, cuts), strict=True))
    last, tail = first, len(whole) - stop
    for k, (piece, where, of) in enumerate(pieces):
        assert len(piece) <= 40
        begin = last - (stride if k else 0)
        last = begin + len(piece) - first - tail
        picked = [*range(first), *range(begin, last), *range(stop, len(whole))]
        assert piece.tolist() == whole[picked].tolist()
        assert where.tolist() == all_offsets[picked].tolist()
        assert of.tolist() == all_words[picked].tolist()
    assert last == stop
    kept = one_copy(word, cuts)
    for w in range(len(words)):
        (at,) = [k for k, part in enumerate(np.split(kept, cuts)) if w in part]  # one piece only
        counts = [int((of == w).sum()) for _, _, of in pieces]
        assert int((kept == w).sum()) == counts[at] == max(counts)
        if int((all_words == w).sum()) <= stride + 1:
            assert counts[at] == int((all_words == w).sum())


def chosen_piece(pieces, w):
    """By the docstring of one_copy, piece by piece: most tokens, then farthest from a cut, then the first."""
    ranks = []
    for k, piece in enumerate(pieces):
        at = [i for i, of in enumerate(piece) if of == w]
        if not at:
            continue
        with_word = [i for i, of in enumerate(piece) if of >= 0]
        from_cuts = [at[0] - with_word[0]] if k > 0 else []
        from_cuts += [with_word[-1] - at[-1]] if k < len(pieces) - 1 else []
        ranks.append((-len(at), -min(from_cuts), k))
    return min(ranks)[2]


@st.composite
def overlapping(draw):
    """The words of a text's tokens, with some that are none's, in pieces as ``window_text`` has them."""
    before, text, after, max_length, stride = draw(long_texts())
    lengths = draw(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0, 0, 0, 1, 2])), min_size=text + 1))
    tokens = [w for k, (size, gap) in enumerate(lengths) for w in [*[k] * size, *[-1] * gap]][:text]
    words = np.array([*[-1] * before, *tokens, *[-1] * after], dtype=np.int32)
    picked, cuts = window_text(len(words), (before, before + text), max_length, stride=stride)
    return words[picked], cuts


@settings(suppress_health_check=[HealthCheck.large_base_example, HealthCheck.too_slow, HealthCheck.data_too_large])
@given(overlapping())
def test_one_copy_of_each_word(case):
    word, cuts = case
    before = word.copy()
    kept = one_copy(word, cuts)
    assert (word == before).all()  # not changed in place
    pieces = [piece.tolist() for piece in np.split(word, cuts)]
    if not cuts:
        assert kept.tolist() == word.tolist()
        return
    chosen = {w: chosen_piece(pieces, w) for w in {*word.tolist()} - {-1}}
    expected = [of if chosen.get(of) == k else -1 for k, piece in enumerate(pieces) for of in piece]
    assert kept.tolist() == expected


def test_which_copy_is_kept():
    def kept(*pieces):
        word = np.array([w for piece in pieces for w in piece], dtype=np.int32)
        return one_copy(word, np.cumsum([len(piece) for piece in pieces])[:-1].tolist()).tolist()

    assert kept([-1, 0, 1, -1], [-1, 1, 1, -1]) == [-1, 0, -1, -1, -1, 1, 1, -1]  # the one that has more of it
    assert kept([0, 1, 2, 3, 4], [1, 2, 3, 4, 5]) == [0, 1, 2, -1, -1, -1, -1, 3, 4, 5]  # the farthest from a cut
    assert kept([0, 1, 2, 3], [1, 2, 3, 4]) == [0, 1, 2, -1, -1, -1, 3, 4]  # of equals the first
    assert kept([0, 1], [1, 2], [2, 3]) == [0, 1, -1, 2, -1, 3]
    assert kept([0, 1, 2], [5, 0, 1, 2]) == [0, -1, -1, 5, -1, 1, 2]  # no cut before the first piece
    assert kept([0, 1, 2, 5], [0, 1, 2]) == [0, 1, -1, 5, -1, -1, 2]  # nor after the last
