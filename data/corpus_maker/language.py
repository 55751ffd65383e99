"""What a language gives to the prose generator: phrases by topic, sentence frames and a site's own words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One subject matter: its name, noun phrases (nominative singular) and predicates (third person present)."""

    name: str
    subjects: tuple[str, ...]
    predicates: tuple[str, ...]


@dataclass(frozen=True)
class SiteWords:
    """What a site of this language writes around its articles."""

    menu: tuple[str, ...]
    cookies: str
    advert: str
    related: str
    comments: str
    share: str
    rights: str


@dataclass(frozen=True)
class Language:
    """Frames name their slots: o opener, s and t subjects, p and q predicates, a adjunct; S begins a sentence."""

    code: str
    frames: tuple[str, ...]
    openers: tuple[str, ...]
    adjuncts: tuple[str, ...]
    topics: tuple[Topic, ...]
    site: SiteWords
    space: str = " "


def phrases(text: str) -> tuple[str, ...]:
    """One phrase a line."""
    return tuple(line.strip() for line in text.strip().splitlines())


def topic(name: str, subjects: str, predicates: str) -> Topic:
    """A topic from two blocks of one phrase a line."""
    return Topic(name, phrases(subjects), phrases(predicates))
