"""Tool calls: one, several, none, with tools that were invented for the question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.mini import words
from tools.mini.example import Call, Example, Message, Reply, Tool, ask, says
from tools.mini.source import Source, join_identifier
from tools.mini.tasks.fields import Field, Value, invent_fields, mentions, object_schema, spoken
from tools.mini.tasks.natural_tools import natural_request

NO_TOOL = "None of my tools can do that."
_POLITE = (
    "{x}", "{x}", "{x}", "{x}", "Please {x}", "please {x}", "Can you {x}?", "I want to {x}.", "Could you {x}?",
    "I need you to {x}.", "{x}, please.", "Would you {x}?", "{x}!", "Now {x}",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """A tool, what the user says to have it called, and the call that is meant."""

    tool: Tool
    text: str
    call: Call
    verb: str
    topic: str


# --- inventing ---------------------------------------------------------------------------


def invented_request(source: Source, verb: str = "", topic: str = "") -> Request:
    """A tool that nobody has, and a wish for it."""
    verb = verb or source.pick(list(words.VERBS))
    topic = topic or " ".join([*([source.word()] if source.chance(0.3) else []), source.word()])
    fields = invent_fields(source, source.pick((0, 1, 1, 1, 2, 2, 2, 3, 3, 4)))
    used = [field for field in fields if source.chance(0.85)]
    required = [field.name for field in fields if field in used and source.chance(0.85)]
    tool = _tool(
        source, _name(source, verb, topic), _description(source, verb, topic), fields, required
    )
    return _wish(source, tool, verb, topic, used)


def _wish(source: Source, tool: Tool, verb: str, topic: str, used: Sequence[Field]) -> Request:
    """The user's words, and the call with the arguments in the schema's order."""
    said = (
        f"{source.pick(words.VERBS[verb])} {source.pick(('', 'the ', 'a ', 'the ', 'my '))}{topic}"
    )
    properties = tool["function"].get("parameters", {}).get("properties", {})
    if len(properties) == 1 and used and isinstance(used[0].value, str) and source.chance(0.35):
        said += f"{source.pick((' ', ' for ', ' for ', ' in ', ' of ', ': '))}{spoken(used[0].value, source)}"
    elif used:
        said += source.pick((" with ", " with ", " ", ", ", " using ", ": ", " where ")) + mentions(
            used, source
        )
    call = Call(tool["function"]["name"], {field.name: field.value for field in used})
    return Request(tool, said, call, verb, topic)


def _name(source: Source, verb: str, topic: str) -> str:
    parts = [verb, *topic.split()]
    kind = source.rng.random()
    if kind < 0.1:
        parts = [*topic.split(), verb]
    elif kind < 0.17:
        parts = topic.split()
    elif kind < 0.25:
        parts = [source.word(), *parts]
    return join_identifier(parts, source.pick(("_", "_", "_", "_", "camel", "-", ".")))


def _description(source: Source, verb: str, topic: str) -> str:
    text = source.pick(
        ("{V} a {t}.", "{V} the {t}", "{V} the {t} of a {n}.", "{V} {t}s", "Use this to {v} a {t}.", "{V} a {t} for the user",
         "{V} a {t} in the {a} {n}.", "", "A function to {v} the {t}", "{v} {t}")
    )  # fmt: skip
    return text.format(v=verb, V=verb.capitalize(), t=topic, n=source.noun(), a=source.adjective())


def _tool(
    source: Source, name: str, description: str, fields: Sequence[Field], required: Sequence[str]
) -> Tool:
    function: dict[str, Any] = {"name": name}
    if description:
        function["description"] = description
    function["parameters"] = object_schema(fields, required, source)
    if not fields and source.chance(0.3):
        del function["parameters"]
    if source.chance(0.1):
        function["strict"] = True
    if source.chance(0.05):
        function = dict(reversed(function.items()))
    return {"type": "function", "function": function}


def a_request(source: Source) -> Request:
    """Mostly with an invented tool; in the evaluation always."""
    if source.held_apart or source.chance(0.72):
        return invented_request(source)
    tool, text, call = natural_request(source)
    return Request(tool, text, call, "", "")


def _distractors(source: Source, wanted: Sequence[Request]) -> list[Tool]:
    """Other tools; some share the verb or the object with one that is wanted."""
    taken = {request.call.name for request in wanted}
    tools = []
    for _ in range(source.pick((0, 0, 1, 1, 2, 2, 3, 4))):
        model = source.pick(wanted)
        kind = source.rng.random() if model.verb else 1.0
        if kind < 0.25:
            verb = source.pick([verb for verb in words.VERBS if verb != model.verb])
            other = invented_request(source, verb, model.topic)
        elif kind < 0.5:
            other = invented_request(source, model.verb)
        else:
            other = a_request(source)
        if other.call.name not in taken:
            taken.add(other.call.name)
            tools.append(other.tool)
    return tools


def _polite(source: Source, *requests: Request) -> str:
    """What the user says; several wishes are joined."""
    joint = source.pick((" and ", ". Then ", "; ", " and also ", ", then ", "\n", ". Also "))
    text = joint.join(request.text for request in requests)
    if not requests[0].verb:
        # A whole sentence already.
        kind = source.rng.random()
        return f"{text} Please." if kind < 0.03 else f"Hi! {text}" if kind < 0.06 else text
    text = source.pick(_POLITE).format(x=text)
    return text[:1].upper() + text[1:] if source.chance(0.6) else text


def _shuffled(source: Source, tools: list[Tool]) -> list[Tool]:
    return source.some(tools, len(tools))


# --- examples ----------------------------------------------------------------------------


def same_calls(calls: Sequence[Call]) -> Any:
    """The reply makes these calls, whatever the order of their arguments."""

    def check(reply: Reply) -> bool:
        return [(call.name, call.arguments) for call in reply.calls] == [
            (call.name, call.arguments) for call in calls
        ]

    return check


def single_call(source: Source) -> Example:
    """One of up to five tools."""
    source = source.strict()
    request = a_request(source)
    tools = _shuffled(source, [request.tool, *_distractors(source, [request])])
    return _calling("tools", _polite(source, request), tools, [request.call])


def parallel_calls(source: Source) -> Example:
    """Two or three calls at once: of one tool or of several."""
    source = source.strict()
    first = a_request(source)
    if first.verb and first.call.arguments and source.chance(0.5):
        requests = [first]
        for _ in range(source.pick((1, 1, 2))):
            requests.append(_again(source, first))
    else:
        requests = [first]
        second = a_request(source)
        if second.call.name != first.call.name:
            requests.append(second)
    tools = {request.call.name: request.tool for request in requests}
    listed = _shuffled(source, [*tools.values(), *_distractors(source, requests)])
    text = _polite(source, *requests)
    return _calling("parallel tools", text, listed, [request.call for request in requests])


def _again(source: Source, first: Request) -> Request:
    """The same tool with other values."""
    properties = first.tool["function"]["parameters"]["properties"]
    used = [
        Field(
            name, name.replace("_", " "), properties[name], _like(source, value, properties[name])
        )
        for name, value in first.call.arguments.items()
    ]
    return _wish(source, first.tool, first.verb, first.topic, used)


def _like(source: Source, value: object, schema: dict[str, Any]) -> Value:
    if "enum" in schema:
        return str(source.pick(schema["enum"]))
    if isinstance(value, bool):
        return source.chance(0.5)
    if isinstance(value, int):
        return source.integer()
    if isinstance(value, float):
        return source.decimal()
    if isinstance(value, list):
        return [source.word() for _ in range(source.between(1, 3))]
    return source.text()


def _calling(task: str, text: str, tools: list[Tool], calls: list[Call]) -> Example:
    names = ", then ".join(call.name for call in calls)
    return Example(
        task=task,
        messages=ask(text),
        tools=tools,
        calls=calls,
        thought=f"I call {names}.",
        check=same_calls(calls),
    )


def missing_tool(source: Source) -> Example:
    """A wish that none of the tools serves."""
    source = source.strict()
    request = invented_request(source)
    tools = [invented_request(source).tool for _ in range(source.pick((1, 1, 2, 3)))]
    return Example(
        task="no tool fits", messages=ask(_polite(source, request)), tools=tools,
        thought="No tool fits.", answer=NO_TOOL, check=says(NO_TOOL),
    )  # fmt: skip


def missing_argument(source: Source) -> Example:
    """The tool fits, but the user did not say everything that it needs."""
    source = source.strict()
    verb, topic = source.pick(list(words.VERBS)), source.word()
    field = invent_fields(source, 1)[0]
    tool = _tool(
        source, _name(source, verb, topic), _description(source, verb, topic), [field], [field.name]
    )
    request = _wish(source, tool, verb, topic, [])
    answer = f"Please tell me the {field.words}."
    return Example(
        task="argument missing", messages=ask(_polite(source, request)),
        tools=_shuffled(source, [tool, *_distractors(source, [request])]),
        thought=f"{request.call.name} needs the {field.words}.", answer=answer, check=says(field.words),
    )  # fmt: skip


def after_result(source: Source) -> Example:
    """The tool has answered: tell the user."""
    source = source.strict()
    requests = [a_request(source)]
    if source.chance(0.2):
        second = a_request(source)
        if second.call.name != requests[0].call.name:
            requests.append(second)
    text = _polite(source, *requests)
    messages: list[Message] = ask(text)
    calls = [request.call for request in requests]
    called: Message = {
        "role": "assistant",
        "content": source.pick(("", None)),
        "tool_calls": _as_openai(calls, source),
    }
    if source.chance(0.4):
        called["reasoning_content"] = f"I call {', then '.join(call.name for call in calls)}."
    messages.append(called)
    answers, values = [], []
    for _ in requests:
        content, answer, told = tool_result(source)
        messages.append({"role": "tool", "content": content})
        answers.append(answer)
        values += told
    tools = _shuffled(
        source, [*(request.tool for request in requests), *_distractors(source, requests)]
    )
    return Example(
        task="tool results", messages=messages, tools=tools, thought="The result is there.",
        answer=" ".join(answers), check=says(*values),
    )  # fmt: skip


def next_call(source: Source) -> Example:
    """Another wish after a first one was served."""
    source = source.strict()
    served = after_result(source)
    request = a_request(source)
    if any(tool["function"]["name"] == request.call.name for tool in served.tools):
        return single_call(source)
    history = [*served.messages, {"role": "assistant", "content": served.answer}]
    for message in history:
        message.pop("reasoning_content", None)
    tools = _shuffled(source, [*served.tools[:3], request.tool])
    example = _calling("tools", _polite(source, request), tools, [request.call])
    example.messages = [*history, *example.messages]
    return example


def _as_openai(calls: Sequence[Call], source: Source) -> list[dict[str, Any]]:
    """Calls as clients send them back: the arguments are a string, or an object."""
    as_text = source.chance(0.8)
    return [
        {
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False)
                if as_text
                else call.arguments,
            },
        }
        for call in calls
    ]


def tool_result(source: Source) -> tuple[str, str, list[str]]:
    """(what the tool says, what the user is told, what must be in it)."""
    kind = source.rng.random()
    if kind < 0.5:
        fields = invent_fields(source, source.pick((1, 1, 2, 2, 3, 4)))
        result = {field.name: field.value for field in fields}
        parts = [f"the {field.words} is {_told(field.value)}" for field in fields]
        text = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
        content = json.dumps(result, ensure_ascii=False, indent=source.pick((None, None, None, 2)))
        return content, f"{text[:1].upper()}{text[1:]}.", [_told(field.value) for field in fields]
    if kind < 0.7:
        value = _told(source.pick((source.integer, source.decimal, source.text, source.word))())
        content = value if source.chance(0.7) else json.dumps({"result": value}, ensure_ascii=False)
        return content, f"The result is {value}.", [value]
    if kind < 0.8:
        items = [source.word() for _ in range(source.between(1, 5))]
        listed = f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else items[0]
        return json.dumps(items), f"I found {listed}.", items
    if kind < 0.9:
        reason = source.phrase()
        content = source.pick(
            (json.dumps({"error": reason}), f"Error: {reason}", f"error: {reason}")
        )
        return content, f"That did not work: {reason}.", [reason]
    sentence = source.pick(
        ("It is {v} degrees and {a} in {c}.", "The {n} of {p} is {v}.", "{p} has {v} {n}s in {c}.", "Done. The {n} was saved as {v}.",
         "{c}: {a}, {v}\u00b0C", "The {a} {n} costs {v}.", "Sent the {n} to {p}.")
    ).format(v=source.integer(), a=source.adjective(), c=source.city(), n=source.noun(), p=source.person())  # fmt: skip
    return sentence, sentence, [sentence]


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(value) if isinstance(value, list) else str(value)
