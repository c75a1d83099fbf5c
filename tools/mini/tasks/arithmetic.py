"""Sums, differences and products, with the columns of the school book as thinking."""

from __future__ import annotations

from tools.mini.example import Example, ask, says, says_number
from tools.mini.source import Source

_SUM = (
    "What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a}+{b}=?", "{a}+{b}", "{a}+{b}?", "{a} + {b}?", "What is {a}+{b}?", "{a} + {b} =", "What's {a} plus {b}?",
    "Add {a} and {b}.", "Calculate {a} + {b}", "How much is {a} + {b}?", "Compute {a}+{b}.",
    "What is the sum of {a} and {b}?", "{a} plus {b}?", "Please add {a} to {b}", "what is {a}+{b}",
    "Can you add {a} and {b}?", "Tell me {a} + {b}", "How much is {a} and {b} together?",
    "Solve: {a} + {b}", "Sum: {a}, {b}", "I need {a} + {b}.", "Sum of {a} and {b}?", "Find the sum of {a} and {b}.", "What do {a} and {b} make?",
    "I have {a} books and buy {b} more. How many books do I have now?", "Tom had {a} cards and got {b} more cards. How many has he?",
    "I have {a} apples and get {b} more. How many do I have?", "{a} birds and {b} birds are how many birds?",
    "Anna has {a} coins and Tom has {b}. How many do they have together?", "whats {a} + {b}?",
    "There are {a} red and {b} blue balls. How many balls are there?",
)  # fmt: skip
_DIFFERENCE = (
    "What is {a} - {b}?", "{a} - {b}", "{a}-{b}", "{a}-{b}?", "What's {a} minus {b}?", "Subtract {b} from {a}.",
    "Calculate {a} - {b}", "How much is {a} - {b}?", "{a} minus {b}?", "Compute {a}-{b}.", "{a} - {b} =",
    "I have {a} apples and eat {b}. How many are left?", "What is the difference of {a} and {b}?",
    "There are {a} birds and {b} fly away. How many stay?", "what is {a}-{b}", "Take {b} from {a}",
)  # fmt: skip
_PRODUCT = (
    "What is {a} * {b}?", "{a} * {b}", "{a}*{b}", "What's {a} times {b}?", "Multiply {a} by {b}.",
    "Calculate {a} x {b}", "How much is {a} * {b}?", "{a} times {b}?", "{a} x {b}", "{a} * {b} =",
    "What is the product of {a} and {b}?", "Compute {a}*{b}.", "what is {a} x {b}?", "Multiply {a} and {b}",
    "There are {a} boxes with {b} pens each. How many pens are there?",
)  # fmt: skip
_QUOTIENT = (
    "What is {a} / {b}?", "{a} / {b}", "{a}/{b}", "Divide {a} by {b}.", "What's {a} divided by {b}?",
    "How much is {a} / {b}?", "{a} divided by {b}?", "Calculate {a} / {b}", "Compute {a}/{b}.", "{a} : {b}",
)  # fmt: skip


def arithmetic(source: Source) -> Example:
    """Any of the four operations."""
    kind = source.rng.random()
    if kind < 0.5:
        return addition(source, source.pick((1, 2, 2, 2, 3, 4)))
    if kind < 0.72:
        return subtraction(source)
    return multiplication(source) if kind < 0.92 else division(source)


def addition(source: Source, digits: int = 2) -> Example:
    """A sum of numbers of up to ``digits`` digits; half of them have all digits."""
    low = 10 ** (digits - 1) if source.chance(0.5) and digits > 1 else 0
    a, b = source.between(low, 10**digits - 1), source.between(low, 10**digits - 1)
    question = source.pick(_SUM).format(a=a, b=b)
    return _example(question, sum_in_columns(a, b), f"{a} + {b} = {a + b}.", a + b, digits > 2)


def two_digit_addition(source: Source) -> Example:
    """What the model card promises."""
    a, b = source.between(10, 99), source.between(10, 99)
    question = source.pick(_SUM).format(a=a, b=b)
    return _example(question, sum_in_columns(a, b), f"{a} + {b} = {a + b}.", a + b, False)


def subtraction(source: Source) -> Example:
    """A difference, now and then a negative one."""
    digits = source.pick((1, 2, 2, 2, 3))
    a, b = source.between(0, 10**digits - 1), source.between(0, 10**digits - 1)
    if a < b and source.chance(0.85):
        a, b = b, a
    question = source.pick(_DIFFERENCE).format(a=a, b=b)
    thought = difference_in_columns(a, b)
    return _example(question, thought, f"{a} - {b} = {a - b}.", a - b, digits > 2)


def multiplication(source: Source) -> Example:
    """The tables up to 12, and numbers of two or three digits by one or two."""
    if source.chance(0.55):
        a, b = source.between(0, 12), source.between(0, 12)
        thought, is_hard = f"{a} * {b} = {a * b}", False
    elif source.chance(0.6):
        a, b = source.between(11, 999), source.between(2, 9)
        thought, is_hard = product_in_columns(a, b), True
    else:
        a, b = source.between(11, 99), source.between(11, 99)
        tens, ones = b // 10 * 10, b % 10
        thought, is_hard = (
            (
                f"{b} = {tens} + {ones}\n{product_in_columns(a, tens // 10)}\n{a} * {tens} = {a * tens}\n"
                f"{product_in_columns(a, ones)}\n{sum_in_columns(a * tens, a * ones)}"
            ),
            True,
        )
    question = source.pick(_PRODUCT).format(a=a, b=b)
    return _example(question, thought, f"{a} * {b} = {a * b}.", a * b, is_hard)


def division(source: Source) -> Example:
    """Without a rest."""
    b, quotient = source.between(1, 12), source.between(0, 12)
    a = b * quotient
    question = source.pick(_QUOTIENT).format(a=a, b=b)
    return _example(
        question, f"{b} * {quotient} = {a}", f"{a} / {b} = {quotient}.", quotient, False
    )


def comparison(source: Source) -> Example:
    """Which of two numbers is larger or smaller; whether one is even."""
    a, b = source.between(0, 999), source.between(0, 999)
    kind = source.between(0, 2)
    if kind == 0:
        question = source.pick(
            (
                "Which is larger, {a} or {b}?",
                "What is bigger: {a} or {b}?",
                "Larger number: {a}, {b}",
            )
        )
        answer = f"{max(a, b)} is larger." if a != b else "They are equal."
    elif kind == 1:
        question = source.pick(("Which is smaller, {a} or {b}?", "What is less: {a} or {b}?"))
        answer = f"{min(a, b)} is smaller." if a != b else "They are equal."
    else:
        question = source.pick(("Is {a} even?", "Is {a} even or odd?", "Is {a} an odd number?"))
        answer = f"{a} is {'odd' if a % 2 else 'even'}."
    text = question.format(a=a, b=b)
    return Example(
        task="comparison", messages=ask(text), thought="I look at the digits.", answer=answer
    )


def counting(source: Source) -> Example:
    """Counting up or down, for a while."""
    start = source.pick((1, 1, 1, 0, source.between(2, 80)))
    end = start + source.between(2, source.pick((9, 19, 40)))
    if source.chance(0.15):
        start, end = end, start
    step = 1 if start <= end else -1
    answer = ", ".join(map(str, range(start, end + step, step)))
    text = source.phrasing(
        ("Count from {a} to {b}.", "count from {a} to {b}", "Please count from {a} to {b}",
         "Write the numbers from {a} to {b}.", "Numbers from {a} to {b}?", "List all numbers from {a} to {b}")
    ).format(a=start, b=end)  # fmt: skip
    if start == 1 and source.chance(0.4):
        text = f"Count to {end}"
    if step < 0:
        text = f"Count down from {start} to {end}."
    thought = f"I go from {start} to {end}."
    return Example(
        task="counting", messages=ask(text), thought=thought, answer=answer, check=says(answer)
    )


def _example(question: str, thought: str, answer: str, number: int, is_hard: bool) -> Example:
    return Example(
        task="arithmetic",
        messages=ask(question),
        thought=thought,
        answer=answer,
        needs_thought=is_hard,
        check=says_number(number),
    )


# --- columns -----------------------------------------------------------------------------


def sum_in_columns(a: int, b: int) -> str:
    """``7 + 8 = 15: write 5, carry 1`` from right to left, and the result."""
    lines, carry = [f"{a} + {b}"], 0
    for x, y in _columns(a, b):
        total = x + y + carry
        carried = f" + {carry}" if carry else ""
        carry = total // 10
        lines.append(f"{x} + {y}{carried} = {total}: write {total % 10}, carry {carry}")
    return "\n".join([*lines, f"{a} + {b} = {a + b}"])


def difference_in_columns(a: int, b: int) -> str:
    """``12 - 8 = 4: write 4, borrow 1`` from right to left, and the result."""
    if a < b:
        return f"{a} is less than {b}\n{difference_in_columns(b, a)}\n{a} - {b} = {a - b}"
    lines, borrowed = [f"{a} - {b}"], 0
    for x, y in _columns(a, b):
        taken = f" - {borrowed}" if borrowed else ""
        rest = x - y - borrowed
        upper = x + 10 if rest < 0 else x
        borrowed = int(rest < 0)
        lines.append(f"{upper} - {y}{taken} = {rest % 10}: write {rest % 10}, borrow {borrowed}")
    return "\n".join([*lines, f"{a} - {b} = {a - b}"])


def product_in_columns(a: int, b: int) -> str:
    """A number by a digit."""
    lines, carry = [f"{a} * {b}"], 0
    for x in reversed([int(digit) for digit in str(a)]):
        total = x * b + carry
        carried = f" + {carry}" if carry else ""
        carry = total // 10
        lines.append(f"{x} * {b}{carried} = {total}: write {total % 10}, carry {carry}")
    return "\n".join([*lines, f"{a} * {b} = {a * b}"])


def _columns(a: int, b: int) -> list[tuple[int, int]]:
    """The digits of both, the ones first."""
    width = max(len(str(a)), len(str(b)))
    pairs = zip(f"{a:0{width}}", f"{b:0{width}}", strict=True)
    return [(int(x), int(y)) for x, y in reversed(list(pairs))]
