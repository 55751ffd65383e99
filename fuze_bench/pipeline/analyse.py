"""text → summary, keywords, reading time: cheap, without a model, the same every time."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import justext

#: Silent reading of English non-fiction, words a minute (Brysbaert 2019, doi:10.1016/j.jml.2019.104047).
WORDS_PER_MINUTE = 238
#: Scripts written without spaces are counted in characters: reading speed of Chinese and Japanese from the IReST
#: study (Trauzettel-Klosinski & Dietz 2012, doi:10.1167/iovs.11-8284), rounded.
CHARACTERS_PER_MINUTE = 250
_SUMMARY_SENTENCES = 3
_SUMMARY_MAX_CHARS = 600
_KEYWORDS = 8
#: A page's first this many words decide its keywords and summary; a book-long page costs no more than an article.
_READ_WORDS = 5_000

_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W\d_{_UNSPACED}](?:[^\W_{_UNSPACED}]|['’-](?=\w))*")
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”»)]*\s+|(?<=[。！？])|\n+")

# justext comes with trafilatura and carries stop words of a hundred languages under their English names.
_STOPLISTS = {
    "ar": "Arabic", "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "lt": "Lithuanian",
    "lv": "Latvian", "nl": "Dutch", "no": "Norwegian_Bokmal", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese",
}  # fmt: skip


@dataclass(frozen=True)
class Analysis:
    """`summary` is a few of the text's own sentences; `keywords` are in falling order of weight."""

    summary: str
    keywords: list[str]
    word_count: int
    reading_time_s: int


def analyse(text: str, language: str | None, title: str | None = None) -> Analysis:
    """What can be said about a text without understanding it; `language` is an ISO 639-1 code."""
    words = _words(text)
    weights = _weights(words[:_READ_WORDS], language, title)
    best = sorted(weights, key=lambda word: (-weights[word], word))
    return Analysis(
        summary=_summary(text, weights),
        keywords=best[:_KEYWORDS],
        word_count=len(words),
        reading_time_s=_reading_time_s(words),
    )


def _words(text: str) -> list[str]:
    """Words in lower case; a run of an unspaced script gives its pairs of characters, as search engines do."""
    result: list[str] = []
    for match in _WORD.finditer(text):
        run = match[0]
        if _UNSPACED_RUN.match(run) and len(run) > 2:
            result.extend(run[i : i + 2] for i in range(len(run) - 1))
        else:
            result.append(run.lower())
    return result


def _weights(words: list[str], language: str | None, title: str | None) -> dict[str, float]:
    """How much each content word counts: how often it stands there, more if early, and more if in the title."""
    stop = _stop_words(language)
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for position, word in enumerate(words):
        if word not in stop and (len(word) > 2 or _UNSPACED_RUN.match(word)):
            counts[word] += 1
            first.setdefault(word, position)
    in_title = set(_words(title or ""))
    return {
        word: (1 + math.log(count))
        * (1 + 0.5 / (1 + first[word] / 50))
        * (1.5 if word in in_title else 1)
        * (1 if count > 1 else 0.5)
        for word, count in counts.items()
    }


@lru_cache(maxsize=64)
def _stop_words(language: str | None) -> frozenset[str]:
    name = _STOPLISTS.get(language or "")
    return frozenset(word.lower() for word in justext.get_stoplist(name)) if name else frozenset()


def _summary(text: str, weights: dict[str, float]) -> str:
    """The sentences that carry most weight a word, in their order; early ones are preferred, as in news."""
    sentences = [
        s.strip() for s in _SENTENCE_END.split(text[: _READ_WORDS * 8]) if s and len(s.strip()) > 20
    ][:80]
    if not sentences:
        return text[:_SUMMARY_MAX_CHARS].strip()
    scored = []
    for position, sentence in enumerate(sentences):
        words = _words(sentence)
        weight = sum(weights.get(word, 0.0) for word in words) / (8 + len(words))
        scored.append((weight * (1 + 1 / (1 + position)), -position))
    chosen: list[int] = []
    length = 0
    for _, negative in sorted(scored, reverse=True)[:_SUMMARY_SENTENCES]:
        if length + len(sentences[-negative]) <= _SUMMARY_MAX_CHARS:
            chosen.append(-negative)
            length += len(sentences[-negative])
    if not chosen:
        return sentences[0][:_SUMMARY_MAX_CHARS].rsplit(" ", 1)[0] + " …"
    return " ".join(sentences[position] for position in sorted(chosen))


def _reading_time_s(words: list[str]) -> int:
    unspaced = sum(1 for word in words if _UNSPACED_RUN.match(word))
    minutes = (len(words) - unspaced) / WORDS_PER_MINUTE + unspaced / CHARACTERS_PER_MINUTE
    return max(1, math.ceil(minutes * 60)) if words else 0
