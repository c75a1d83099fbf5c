"""``jackfield chat``: a conversation with a running server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from jackfield.cli.api_client import ApiClient
from jackfield.cli.terminal import Screen, client_parser, connect, lines_from_user, sampling
from jackfield.errors import ApiError

_HELP = "/clear forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer"


def main(argv: list[str]) -> int:
    """Talks until the input ends; with ``--quick``, one answer. The exit status."""
    parser = client_parser("chat", "A conversation with a running server, in the terminal.")
    parser.add_argument("--system-prompt", help="what the model is told first")
    parser.add_argument("--no-thinking", action="store_true", help="ask for answers at once")
    parser.add_argument("-q", "--quick", metavar="MESSAGE", help="ask this, print the answer, end")
    args = parser.parse_args(argv)
    client, model = connect(args)
    request: dict[str, object] = {"model": model, **sampling(args)}
    if args.no_thinking:
        request["chat_template_kwargs"] = {"enable_thinking": False}
    chat = Conversation(client, request, args.system_prompt)
    if args.quick is not None:
        chat.ask(args.quick)
        return 0
    if sys.stdin.isatty():
        print(f"{model} at {args.url}; {_HELP}")
    for line in lines_from_user("> "):
        if line.strip() in ("/exit", "/quit"):
            break
        _answer(chat, line)
    return 0


def _answer(chat: Conversation, line: str) -> None:
    if line.strip() == "/clear":
        chat.clear()
    elif line.strip() == "/help":
        print(_HELP)
    else:
        try:
            chat.ask(line)
        except ApiError as error:
            # A question that the server refuses does not end the conversation.
            print(f"jackfield: error: {error}", file=sys.stderr)


@dataclass
class Conversation:
    """The messages so far; ``request`` holds the fields that every question has."""

    client: ApiClient
    request: dict[str, object]
    system_prompt: str | None = None
    messages: list[dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Back to the beginning."""
        self.messages = []
        if self.system_prompt is not None:
            self.messages.append({"role": "system", "content": self.system_prompt})

    def ask(self, text: str) -> None:
        """Shows the answer as it comes; Ctrl-C ends it, and what was said stays said. A question
        that fails is as if it had not been asked."""
        question = {"role": "user", "content": text}
        body = {**self.request, "messages": [*self.messages, question], "stream": True}
        screen, said = Screen(), []
        with closing(self.client.stream("/chat/completions", body)) as chunks:
            try:
                for delta in _deltas(chunks):
                    thought = delta.get("reasoning_content") or delta.get("reasoning")
                    if thought:
                        screen.write(thought, dim=True)
                    if delta.get("content"):
                        said.append(delta["content"])
                        screen.write(delta["content"])
            except KeyboardInterrupt:
                pass
            finally:
                screen.end()
        self.messages += [question, {"role": "assistant", "content": "".join(said)}]


def _deltas(chunks: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for chunk in chunks:
        for choice in chunk.get("choices", ()):
            yield choice.get("delta", {})
