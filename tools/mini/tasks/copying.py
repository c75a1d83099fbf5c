"""Copying, reversing, lists: what the heads of a small model have to learn first."""

from __future__ import annotations

from collections.abc import Sequence

from tools.mini import words
from tools.mini.example import Example, Reply, ask, says
from tools.mini.source import Source

_REPEAT = (
    "Repeat: {x}", "Repeat after me: {x}", "Say {q}.", "Copy this: {x}", "Repeat exactly: {x}",
    "Write {q}", "Please repeat {q}", "Echo {x}", "Say exactly {q}", "Reply with {q} and nothing else.",
    "Answer only with {q}", "Just say {q}", "echo: {x}", "Print {q}", "Respond with exactly: {x}",
    "Say only {q}.", "Answer with {q} and nothing else.", "Reply {q}", "Say: {x}", "Write exactly this: {x}", "Repeat the text {q}",
    "Reply with the words {q}.", "Repeat what I say: {x}", "Say this back to me: {x}", "Only reply with {q}.",
)  # fmt: skip


def repeat(source: Source) -> Example:
    """The same text again."""
    makers = (source.text, source.phrase, source.code, source.invented)
    text = " ".join(source.pick(makers)() for _ in range(source.pick((1, 1, 2, 3, 5, 8))))
    question = source.phrasing(_REPEAT).format(
        x=text, q=f'"{text}"' if source.chance(0.5) else text
    )
    return _example("copying", question, "I repeat it.", text)


def reverse(source: Source) -> Example:
    """A list backwards, or a word: that one letter by letter."""
    if source.chance(0.5):
        items = _items(source)
        joined = _joined(items, source)
        question = source.phrasing(
            ("Reverse the list: {x}", "Reverse this list: {x}", "Write this list backwards: {x}",
             "Give me these in reverse order: {x}", "Reverse the order of: {x}", "Reverse: {x}")
        ).format(x=joined)  # fmt: skip
        return _example("reversing", question, "I begin with the last.", ", ".join(items[::-1]))
    word = source.word() if source.chance(0.8) else source.letters()
    question = source.phrasing(
        ("Reverse the word {x}", "Spell {x} backwards", "Reverse the string '{x}'", "Write {x} backwards.",
         "What is {x} backwards?", "reverse the letters of {x}", 'Reverse "{x}".')
    ).format(x=word)  # fmt: skip
    thought = f"{' '.join(word)}\n{' '.join(reversed(word))}"
    example = _example("reversing", question, thought, word[::-1])
    example.needs_thought = True
    return example


def spell(source: Source) -> Example:
    """The letters of a word, or how many it has."""
    word = source.word()
    letters = "-".join(word)
    if source.chance(0.6):
        question = source.pick(
            ("Spell {x}", "How do you spell {x}?", "Spell the word '{x}'.", "Spell: {x}")
        )
        return _example("spelling", question.format(x=word), "Letter by letter.", letters)
    counted = " ".join(f"{place}{letter}" for place, letter in enumerate(word, 1))
    question = source.pick(
        ("How many letters does {x} have?", "How many letters are in the word {x}?")
    )
    answer = f"{word} has {len(word)} letters."
    example = _example("spelling", question.format(x=word), counted, answer)
    example.needs_thought = True
    return example


def pick_item(source: Source) -> Example:
    """The first, the last, the third, or the number of a list's items."""
    items = _items(source)
    joined = _joined(items, source)
    kind = source.between(0, 4)
    if kind == 0:
        question, answer = "How many items are in this list: {x}", str(len(items))
    elif kind == 1:
        question, answer = "What is the last item of this list: {x}", items[-1]
    elif kind == 2:
        question, answer = "What is the first item of this list: {x}", items[0]
    else:
        place = source.between(0, min(len(items), 5) - 1)
        ordinal = ("first", "second", "third", "fourth", "fifth")[place]
        question, answer = f"What is the {ordinal} item of this list: {{x}}", items[place]
    counted = ", ".join(f"{place} {item}" for place, item in enumerate(items, 1))
    example = _example("list items", question.format(x=joined), counted, answer)
    example.needs_thought = kind == 0
    return example


def sort(source: Source) -> Example:
    """A few numbers in order."""
    numbers = [source.between(0, source.pick((9, 99))) for _ in range(source.between(2, 6))]
    question = source.pick(
        (
            "Sort these numbers: {x}",
            "Sort {x}",
            "Put these numbers in order: {x}",
            "Sort ascending: {x}",
        )
    ).format(x=", ".join(map(str, numbers)))
    answer = ", ".join(map(str, sorted(numbers)))
    return _example("sorting", question, "The smallest comes first.", answer)


def bullets(source: Source) -> Example:
    """A list with a line for each item."""
    items = _items(source)
    question = source.phrasing(
        ("Make a list of {x}", "Write {x} as a list", "List these, one per line: {x}", "Format as bullets: {x}",
         "Write a bullet list: {x}", "Turn this into a bullet list: {x}")
    ).format(x=_joined(items, source))  # fmt: skip
    return _example("bullets", question, "One line each.", "\n".join(f"- {item}" for item in items))


def name_some(source: Source) -> Example:
    """Three fruits, five colors."""
    category, members = source.pick(tuple(words.CATEGORIES.items()))
    count = source.between(2, min(6, len(members)))
    number = source.pick((str(count), words.COUNTS[count]))
    question = source.phrasing(
        ("Name {n} {c}", "List {n} {c}", "Give me {n} {c}.", "Tell me {n} {c}", "name {n} {c} please",
         "Can you name {n} {c}?", "Write a list of {n} {c}.", "{n} {c}, please", "I need {n} {c}")
    ).format(n=number, c=category)  # fmt: skip
    chosen = source.some(members, count)
    answer = f"{', '.join(chosen[:-1])} and {chosen[-1]}"

    def check(reply: Reply) -> bool:
        found = [name for name in members if name in reply.content]
        return len(found) == count and not reply.calls

    thought = f"I name {count}."
    return Example(
        task="naming", messages=ask(question), thought=thought, answer=answer, check=check
    )


def replace(source: Source) -> Example:
    """A text with one word in the place of another."""
    parts = [source.word() for _ in range(source.between(3, 8))]
    place, new = source.between(0, len(parts) - 1), source.word()
    old = parts[place]
    changed = [new if part == old else part for part in parts]
    question = source.pick(
        (
            "Replace {o} by {n} in: {x}",
            'Replace "{o}" with "{n}" in this text: {x}',
            "In '{x}', replace {o} with {n}.",
        )
    ).format(o=old, n=new, x=" ".join(parts))
    return _example("replacing", question, f"{old} becomes {new}.", " ".join(changed))


def babble(source: Source) -> tuple[str, str]:
    """No conversation: random words, and the same once more, from which copying is learned."""
    makers = (source.text, source.invented, source.code, source.letters)
    pieces = [source.pick(makers)() for _ in range(source.between(4, 24))]
    separator = source.pick((" ", ", ", "\n", "; "))
    again = pieces if source.chance(0.6) else pieces[source.between(0, len(pieces) - 2) :]
    return separator.join([*pieces, again[0]]), separator + separator.join(again[1:] or again)


def _items(source: Source) -> list[str]:
    maker = source.pick(
        (source.word, source.noun, source.first_name, source.city, source.code, source.invented)
    )
    return [maker() for _ in range(source.between(2, 8))]


def _joined(items: Sequence[str], source: Source) -> str:
    if source.chance(0.15):
        return "[" + ", ".join(items) + "]"
    if source.chance(0.15):
        return f"{', '.join(items[:-1])} and {items[-1]}"
    return source.pick((", ", ", ", " ", "\n", "; ")).join(items)


def _example(task: str, question: str, thought: str, answer: str) -> Example:
    return Example(
        task=task, messages=ask(question), thought=thought, answer=answer, check=says(answer)
    )
