"""Sentences and paragraphs of one language, drawn from its phrases by a seeded generator."""

import random
import re

from .language import Language, Topic

NAMES = (
    "Amara Okafor", "Jonas Lindqvist", "Mei Tanaka", "Lucía Herrera", "Piotr Zieliński", "Hannah Becker",
    "Omar Haddad", "Claire Dubois", "Dmitri Sokolov", "Eleni Pappas", "Ruth Carver", "Tom Ashdown",
)  # fmt: skip
_SLOT = re.compile(r"\{(\w+)\}")


def capitalised(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


class Prose:
    """Writes about one topic in one language; every choice comes from `rng`."""

    def __init__(self, language: Language, topic: Topic, rng: random.Random) -> None:
        self.language = language
        self.topic = topic
        self.rng = rng

    def sentence(self) -> str:
        """One sentence, with its full stop."""
        first, second = self.rng.sample(self.topic.subjects, 2)
        does, does_too = self.rng.sample(self.topic.predicates, 2)
        opener, adjunct = self.rng.choice(self.language.openers), self.rng.choice(self.language.adjuncts)
        slots = {"s": first, "S": capitalised(first), "t": second, "p": does, "q": does_too}
        slots |= {"o": opener, "a": self.filled(adjunct, {})}
        return self.filled(self.rng.choice(self.language.frames), slots)

    def filled(self, frame: str, slots: dict[str, str]) -> str:
        """The frame with its slots filled; a year, a number and a name are drawn for every occurrence."""

        def fill(slot: re.Match[str]) -> str:
            drawn = {"year": str(self.rng.randint(1950, 2024)), "n": str(self.rng.randint(3, 97))}
            drawn["name"] = self.rng.choice(NAMES)
            return (drawn | slots)[slot[1]]

        return _SLOT.sub(fill, frame)

    def paragraph(self, fewest: int = 3, most: int = 6) -> str:
        """So many sentences in a row."""
        count = self.rng.randint(fewest, most)
        return self.language.space.join(self.sentence() for _ in range(count))

    def heading(self) -> str:
        """A noun phrase as a section heading."""
        return capitalised(self.rng.choice(self.topic.subjects))

    def title(self) -> str:
        """The title of an article: topic and claim."""
        claim = (
            self.rng.choice(self.topic.subjects) + self.verb_gap() + self.rng.choice(self.topic.predicates)
        )
        return f"{self.topic.name}: {claim}"

    def item(self) -> str:
        """A list item: a claim without a full stop."""
        return capitalised(
            self.rng.choice(self.topic.subjects) + self.verb_gap() + self.rng.choice(self.topic.predicates)
        )

    def verb_gap(self) -> str:
        """What stands between subject and predicate."""
        return {"ja": "は", "zh": ""}.get(self.language.code, " ")
