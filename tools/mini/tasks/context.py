"""What was said before: names to remember, passages to look things up in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tools.mini.example import Example, Message, says
from tools.mini.source import Source


def remember(source: Source) -> Example:
    """Something is told, other turns may follow, then it is asked for."""
    told = [_told(source, kind) for kind in source.some(range(1, 7), source.pick((1, 1, 2, 3)))]
    _, _, question, answer, value = source.pick(told)
    if source.chance(0.25):
        text = " ".join([*(each[0] for each in told), question])
        return _example([{"role": "user", "content": text}], answer, value)
    messages: list[Message] = []
    for each in told:
        messages += [
            {"role": "user", "content": each[0]},
            {"role": "assistant", "content": each[1]},
        ]
    return _example([*messages, {"role": "user", "content": question}], answer, value)


def acknowledge(source: Source) -> Example:
    """The turn in which it is told."""
    statement, noted, *_ = _told(source, source.between(1, 6))
    messages: list[Message] = [{"role": "user", "content": statement}]
    return Example(
        task="context",
        messages=messages,
        thought="I keep this in mind.",
        answer=noted,
        check=says(noted),
    )


@dataclass(frozen=True)
class _Fact:
    """Something that one may tell of oneself: {v} is its value, {t} the thing it is about."""

    value: Callable[[Source], str]
    said: tuple[str, ...]
    noted: str
    asked: tuple[str, ...]
    answer: str
    thing: Callable[[Source], str] = lambda _: ""


def _code_or_word(source: Source) -> str:
    return source.pick((source.code, source.code, source.word))()


def _named_one(source: Source) -> str:
    return source.pick(
        ("dog", "cat", "brother", "sister", "boss", "friend", "teacher", source.noun())
    )


_FACTS = (
    _Fact(
        Source.person,
        ("My name is {v}.", "I am {v}.", "I'm {v}", "Hi, I am {v}.", "my name is {v}", "Call me {v}."),
        "Nice to meet you, {v}.",
        ("What is my name?", "What's my name?", "Who am I?", "Do you know my name?", "my name?"),
        "Your name is {v}.",
    ),
    _Fact(
        Source.city,
        ("I live in {v}.", "I am from {v}.", "My home is {v}.", "I moved to {v}."),
        "So you live in {v}.",
        ("Where do I live?", "In which city do I live?", "Where am I from?", "Which city is my home?"),
        "You live in {v}.",
    ),
    _Fact(
        Source.word,
        ("My favorite {t} is {v}.", "My favourite {t} is {v}", "I like the {t} {v} best."),
        "Noted: your favorite {t} is {v}.",
        ("What is my favorite {t}?", "Which {t} do I like?", "What's my favorite {t}?"),
        "Your favorite {t} is {v}.",
        Source.noun,
    ),
    _Fact(
        _code_or_word,
        ("Remember that the {t} is {v}.", "The {t} is {v}. Remember it.", "Please remember: {t} = {v}", "Keep in mind that the {t} is {v}."),
        "I will remember it.",
        ("What is the {t}?", "Tell me the {t}.", "What was the {t}?", "Which {t} did I tell you?"),
        "The {t} is {v}.",
        Source.noun,
    ),
    _Fact(
        lambda source: str(source.between(2, 99)),
        ("I am {v} years old.", "My age is {v}.", "I'm {v} years old"),
        "So you are {v} years old.",
        ("How old am I?", "What is my age?", "Do you know how old I am?"),
        "You are {v} years old.",
    ),
    _Fact(
        Source.person,
        ("My {t} is called {v}.", "My {t}'s name is {v}.", "I have a {t} called {v}.", "The name of my {t} is {v}."),
        "{v} is a good name.",
        ("What is my {t} called?", "What is the name of my {t}?", "What's my {t}'s name?"),
        "Your {t} is called {v}.",
        _named_one,
    ),
)  # fmt: skip


def _told(source: Source, kind: int) -> tuple[str, str, str, str, str]:
    """(statement, acknowledgement, question, answer, value); ``kind`` counts from 1."""
    fact = _FACTS[kind - 1]
    value = fact.value(source)
    thing = fact.thing(source)
    statement, question = source.pick(fact.said), source.pick(fact.asked)
    texts = (statement, fact.noted, question, fact.answer)
    said, noted, asked, answer = (text.format(v=value, t=thing) for text in texts)
    return said, noted, asked, answer, value


_RELATIONS = (
    ("{k} lives in {v}.", "Where does {k} live?", "{k} lives in {v}.", "city"),
    ("{k} likes {v}.", "What does {k} like?", "{k} likes {v}.", "word"),
    ("The color of the {k} is {v}.", "What is the color of the {k}?", "The color of the {k} is {v}.", "word"),
    ("The code of {k} is {v}.", "What is the code of {k}?", "The code of {k} is {v}.", "code"),
    ("{k} has {v} points.", "How many points does {k} have?", "{k} has {v} points.", "number"),
    ("{k} works as a {v}.", "What does {k} work as?", "{k} works as a {v}.", "word"),
    ("{k}: {v}", "What is the value of {k}?", "{v}", "any"),
    ("The phone number of {k} is {v}.", "What is the phone number of {k}?", "The phone number of {k} is {v}.", "code"),
    ("{k} was born on {v}.", "When was {k} born?", "{k} was born on {v}.", "date"),
    ("{k} costs {v} dollars.", "How much does {k} cost?", "{k} costs {v} dollars.", "number"),
)  # fmt: skip


def lookup(source: Source) -> Example:
    """A passage of alike sentences and a question about one of them."""
    statement, question, answer, kind = source.pick(_RELATIONS)
    key = source.pick((source.person, source.word, source.invented, source.coined))
    values = {
        "city": source.city,
        "word": source.word,
        "code": source.code,
        "date": source.date,
        "any": source.text,
    }
    make = values.get(kind, lambda: str(source.between(0, 999)))
    pairs = {key(): make() for _ in range(source.pick((1, 2, 3, 4, 6, 10)))}
    asked = source.pick(list(pairs))
    passage = source.pick((" ", " ", "\n")).join(
        statement.format(k=k, v=v) for k, v in pairs.items()
    )
    if statement == "{k}: {v}":
        passage = "\n".join(f"{k}: {v}" for k, v in pairs.items())
    wanted = question.format(k=asked)
    messages: list[Message] = [{"role": "user", "content": wanted}]
    kind_of_place = source.between(0, 3)
    if kind_of_place == 0:
        messages.insert(0, {"role": "system", "content": passage})
    elif kind_of_place == 1:
        messages = [{"role": "user", "content": f"{passage}\n\n{wanted}"}]
    elif kind_of_place == 2:
        messages = [{"role": "user", "content": f"{passage} {wanted}"}]
    else:
        head = source.pick(("Context", "Text", "Passage", "Here is what I know"))
        messages = [{"role": "user", "content": f"{head}: {passage}\nQuestion: {wanted}"}]
    value = pairs[asked]
    return Example(
        task="lookup", messages=messages, thought=f"I look for {asked}.",
        answer=answer.format(k=asked, v=value), check=says(value),
    )  # fmt: skip


def _example(messages: list[Message], answer: str, value: str) -> Example:
    return Example(
        task="context",
        messages=messages,
        thought="It was said before.",
        answer=answer,
        check=says(value),
    )
