"""Small talk, a little general knowledge, and honest words about what it does not know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from tools.mini import words
from tools.mini.example import Example, Reply, ask, says
from tools.mini.source import Source
from tools.mini.tasks.small_talk import INTENTS

UNKNOWN_ANSWER = (
    "I do not know that: I am a very small model. A larger model, served with "
    "`jackfield serve MODEL`, can answer it."
)
_UNKNOWN = (
    """
Who wrote {x}?|When was {p} born?|What happened in {n}?|How does a {w} work?|Explain {x} to me
What is the meaning of {x}?|Who won the {w} championship in {n}?|Write an essay about {x}
Why is the {w} {a}?|Write a Python function for a {w}|What is the best {w} in {c}?|What is {x}?
Who is {p}?|Tell me about {x}|Translate "{x}" to {l}|What should I cook with {w} and {w2}?
How many people live in {c}?|What do you think of {x}?|Should I buy a {a} {w}?|How old is {p}?
What is the distance from {c} to {c2}?|What does {i} mean?|How do I repair a {w}?|Summarize {x}
Who invented the {w}?|Where can I buy a {a} {w}?|What is the price of a {w}?|Is {x} good?
What will happen to {x} tomorrow?|Compare {w} and {w2}|Recommend a {w}|Which {w} is the best?
What are the symptoms of {i}?|What is the population of {c}?|Who is the president of {c}?
What is the news about {x}?|Write an email to {p} about the {w}|Write code that sorts a {w}
Can you explain how {w}s work?|Give me advice about my {w}|What is the history of {x}?
How do I become a {w} teacher?|Why did {p} leave {c}?|What is the weather in {c}?
What's the weather like in {c} today?|What time is it in {c}?|Book a {w} for {p}|Who is your boss?
Is it true that {w}s are {a}?|What is the square root of the {w}?|Do {w}s dream?|Define {i}
What is the stock price of {x}?|How tall is {p}?|How is the {w} made?|When does the {w} open?
How can I learn {l}?|What causes {x}?|What is the difference between a {w} and a {w2}?
Who discovered {x}?|Find me a {a} {w} in {c}|What movie should I watch?|What are your thoughts on {x}?
""".strip()
    .replace("\n", "|")
    .split("|")
)
_LOOSE_OPENINGS = ("", "", "", "", "please: ", "hey, ", "Hi! ", "ok, ", "so ", "one question: ")


def small_talk(source: Source) -> Example:
    """A greeting, a thank-you, a question about the model, a joke."""
    intent = source.pick(INTENTS)
    question = asked(intent.questions, source)
    answer = source.pick(intent.answers)
    return Example(
        task="small talk",
        messages=ask(question),
        thought=intent.thought,
        answer=answer,
        check=says_one_of(intent.answers),
    )


def says_one_of(answers: tuple[str, ...]) -> Callable[[Reply], bool]:
    """The reply is one of these."""
    return lambda reply: reply.content in answers and not reply.calls


def unknown(source: Source) -> Example:
    """A question whose answer eight million parameters do not hold."""
    question = source.phrasing(_UNKNOWN).format(
        x=source.phrase(), p=source.person(), n=source.between(1000, 2030), w=source.noun(),
        w2=source.noun(), a=source.adjective(), c=source.city(), c2=source.city(),
        l=source.pick(words.LANGUAGES), i=source.invented(),
    )  # fmt: skip
    return Example(
        task="unknown",
        messages=ask(as_typed(question, source)),
        thought="I have no knowledge of this, so I say so.",
        answer=UNKNOWN_ANSWER,
        check=says("do not know"),
    )


def gibberish(source: Source) -> Example:
    """What is no sentence."""
    makers = (source.letters, source.invented, source.code)
    text = " ".join(source.pick(makers)() for _ in range(source.between(1, 3)))
    answer = "I did not understand that. Please say it in other words."
    return Example(
        task="gibberish",
        messages=ask(text),
        thought="This is no question that I understand.",
        answer=answer,
        check=says("did not understand"),
    )


_CAPITAL = (
    "What is the capital of {}?", "What's the capital of {}?", "capital of {}",
    "Which city is the capital of {}?", "Name the capital of {}.", "Tell me the capital of {}",
    "Do you know the capital of {}?", "{}'s capital?", "What is {}'s capital city?",
    "the capital city of {} is?",
)  # fmt: skip
_OPPOSITE = (
    "What is the opposite of {}?", "What's the opposite of {}?", "opposite of {}",
    "Give me the opposite of {}.", "Which word is the opposite of {}?", "the opposite of {} is",
    "Name an antonym of {}", "What is an antonym for {}?", "Tell me the opposite of '{}'",
    "What would be the opposite of {}?",
)  # fmt: skip


def knowledge(source: Source) -> Example:
    """Capitals and opposites: the little that it knows by heart."""
    if source.chance(0.5):
        country, capital = source.pick(tuple(words.CAPITALS.items()))
        question, answer = _CAPITAL, f"The capital of {country} is {capital}."
        asked, known = country, capital
    else:
        asked, known = source.pick(tuple(words.OPPOSITES.items()))
        if source.chance(0.5):
            asked, known = known, asked
        question, answer = _OPPOSITE, f"The opposite of {asked} is {known}."
    return Example(
        task="knowledge",
        messages=ask(as_typed(source.phrasing(question).format(asked), source)),
        thought="I know this one.",
        answer=answer,
        check=says(known),
    )


_REWORDED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("How do I ", ("How can I ", "How to ", "how would I ", "I want to ", "Can you tell me how to ", "What do I do to ",
                   "How does one ", "Tell me how to ", "Show me how to ", "Please explain how to ", "I need to ")),
    ("How can I ", ("How do I ", "How to ", "Is there a way to ", "Tell me how I can ", "I would like to ")),
    ("What is ", ("What's ", "whats ", "Tell me what is ", "Do you know what is ", "Can you explain ", "Explain ", "And what is ")),
    ("What are ", ("Tell me about ", "Explain ", "What exactly are ", "Describe ")),
    ("Does Jackfield ", ("Can Jackfield ", "Does it ", "does this ", "Will Jackfield ", "Can it ")),
    ("Which ", ("What ", "Tell me which ", "And which ", "Do you know which ")),
    ("Can I ", ("Could I ", "Am I able to ", "Is it possible to ", "May I ")),
    ("Can you ", ("Could you ", "Are you able to ", "Will you ", "Would you ", "Can u ")),
    ("Do you ", ("Do u ", "Tell me, do you ", "Did you ", "So do you ")),
    ("Are you ", ("Are u ", "So are you ", "Tell me, are you ", "Aren't you ")),
    ("Is there ", ("Do you have ", "Does it have ", "Is there also ", "Do we have ")),
    ("Tell me ", ("Please tell me ", "Can you tell me ", "tell us ", "Say ", "I want to hear ")),
    ("Where ", ("Tell me where ", "Do you know where ", "And where ")),
    ("Write ", ("Please write ", "Can you write ", "I want you to write ", "Could you write ")),
)  # fmt: skip


def asked(phrasings: Sequence[str], source: Source) -> str:
    """One of several ways to ask, in training often reworded, and typed as people type. What is
    kept for the evaluation is never made by rewording."""
    text = source.phrasing(phrasings)
    if not source.held_apart and source.chance(0.45):
        for opening, others in _REWORDED:
            if text.startswith(opening):
                other = source.pick(others) + text.removeprefix(opening)
                if _plain(other) not in _kept_apart(tuple(phrasings)):
                    text = other
                break
    typed = as_typed(text, source)
    return (
        text if not source.held_apart and _plain(typed) in _kept_apart(tuple(phrasings)) else typed
    )


@cache
def _kept_apart(phrasings: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(_plain, phrasings[7::8]))


def _plain(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def as_typed(text: str, source: Source) -> str:
    """The carelessness of people at a prompt."""
    kind = source.rng.random()
    if kind < 0.5:
        return text
    if kind < 0.62:
        text = text.rstrip("?.!")
    elif kind < 0.78:
        text = text.rstrip("?.!").lower()
    elif kind < 0.86:
        text = text.lower()
    elif kind < 0.9:
        parts = text.split()
        if len(parts) > 3:
            parts.pop(source.between(0, len(parts) - 2))
        text = " ".join(parts)
    elif kind < 0.95:
        text = source.pick(_LOOSE_OPENINGS) + text[:1].lower() + text[1:]
    elif len(text) > 6:
        place = source.between(1, len(text) - 3)
        swapped = text[place + 1] + text[place]
        text = text[:place] + swapped + text[place + 2 :]
    return text
