"""Analysis: words, summary, keywords and reading time, in several scripts."""

from __future__ import annotations

import pytest

from fuze_bench.pipeline.analyse import WORDS_PER_MINUTE, analyse

ENGLISH = (
    "The lighthouse stands on the northern cliff. Its keeper climbs the stairs of the lighthouse every evening. "
    "Nobody else is allowed to climb them. In winter the lighthouse warns the ships that come from the north. "
    "The weather was pleasant. The keeper writes the name of every ship into a book."
)


def test_keywords_are_what_the_text_is_about() -> None:
    found = analyse(ENGLISH, "en", title="The lighthouse")
    assert found.keywords[0] == "lighthouse"
    assert "keeper" in found.keywords
    assert not {"the", "its", "every", "was"} & set(found.keywords)


def test_the_summary_is_made_of_the_texts_own_sentences() -> None:
    summary = analyse(ENGLISH, "en").summary
    assert "lighthouse" in summary
    assert all(sentence.strip() in ENGLISH for sentence in summary.split(". "))
    assert len(summary) <= 600


@pytest.mark.parametrize(
    ("language", "text", "keyword"),
    [
        ("de", "Der Leuchtturm steht auf der Klippe. Der Wärter kennt den Leuchtturm.", "leuchtturm"),
        ("ru", "Маяк стоит на скале. Смотритель знает этот маяк.", "маяк"),
        ("ja", "灯台は崖の上に立っている。灯台の光は遠くまで届く。", "灯台"),
        (None, "Lumturo staras sur la klifo. La gardisto konas la lumturo.", "lumturo"),
    ],
)
def test_keywords_in_other_languages(language: str | None, text: str, keyword: str) -> None:
    assert keyword in analyse(text, language).keywords[:3]


def test_reading_time_follows_from_the_words() -> None:
    found = analyse("word " * WORDS_PER_MINUTE * 3, "en")
    assert found.word_count == 3 * WORDS_PER_MINUTE
    assert found.reading_time_s == 180


def test_little_and_nothing() -> None:
    assert analyse("", "en").keywords == []
    assert analyse("", "en").reading_time_s == 0
    assert analyse("Hi.", None).summary == "Hi."
    assert analyse("!!! ??? 123", "en").word_count == 0


def test_one_endless_sentence_is_cut() -> None:
    assert len(analyse("word and more " * 5_000, "en").summary) <= 602
