"""Short stories from a few building blocks: something longer to say."""

from __future__ import annotations

from tools.mini.example import Example, Reply, ask
from tools.mini.source import Source

_OPENINGS = (
    "Once upon a time there was a {a} {w} called {p}.", "Long ago, in the town of {c}, lived a {a} {w} named {p}.",
    "{p} was a {a} {w} that nobody knew.", "In {c} there was once a {w}. Its name was {p}.",
)  # fmt: skip
_MIDDLES = (
    "Every day {p} looked for a {a2} {w2}.", "{p} had a friend called {p2}.", "One morning {p} found a {a2} {w2}.",
    "{p2} gave {p} a {w2} and said: take good care of it.", "The {w2} was {a2} and shone in the dark.",
    "{p} asked {p2} for help.", "Together they went to {c2}.", "It rained for three days.",
    "There they met a {a2} {w3}.", "The {w3} told them a secret.", "{p2} laughed and opened the {w2}.",
    "Nobody in {c2} had ever seen such a {w2}.", "{p} was afraid, but {p2} was not.", "At night they heard a {w3}.",
    "They shared a {w3} and slept under a tree.", "{p} lost the {w2} and was sad.", "Then {p2} had an idea.",
    "The way was long and the {w3} was heavy.", "{p} learned that a {w2} is not everything.",
)  # fmt: skip
_ENDINGS = (
    "In the end they came home and were happy.", "From that day on {p} was never alone.",
    "And so the {w} became famous in all of {c}.", "They kept the {w2} and lived happily ever after.",
)  # fmt: skip
_ASKED = (
    "Tell me a story", "Write a story", "Tell me a {length} story", "Write a {length} story about a {w}",
    "Tell me a story about a {w}", "Write a story about a {a} {w}.", "I want to hear a story",
    "A story about a {w}, please", "Can you tell me a story?", "tell a story about a {w} and a {w2}",
    "Once upon a time", "Write me a {length} story", "Write a tale about a {w}", "Make up a story about a {w}",
    "Please tell me a story about a {w} called {p}", "story", "Tell me a bedtime story", "Write something",
    "Write a long text", "Write a few sentences about a {w}.",
)  # fmt: skip


def story(source: Source) -> Example:
    """A story of the length and about what was asked for."""
    named = {
        "p": source.coined() if source.chance(0.5) else source.first_name(), "p2": source.first_name(),
        "w": source.noun(), "w2": source.noun(), "w3": source.noun(), "a": source.adjective(),
        "a2": source.adjective(), "c": source.city(), "c2": source.city(),
    }  # fmt: skip
    while named["p2"] == named["p"]:
        named["p2"] = source.first_name()
    length = source.pick(("short", "short", "long", "very long"))
    question = source.phrasing(_ASKED)
    if "{length}" not in question:
        length = "long" if "long" in question else "short"
    count = {"short": source.between(2, 4), "long": source.between(7, 10), "very long": 14}[length]
    answer = told(named, count, source)

    def check(reply: Reply) -> bool:
        return reply.content.count(".") >= 4 and not reply.calls

    return Example(
        task="stories",
        messages=ask(question.format(length=length, **named)),
        thought="I make up a story.",
        answer=answer,
        check=check,
    )


def told(named: dict[str, str], count: int, source: Source) -> str:
    """The text of a story with ``count`` sentences between beginning and end."""
    middles = source.some(_MIDDLES, count)
    return " ".join([source.pick(_OPENINGS), *middles, source.pick(_ENDINGS)]).format(**named)
