"""``jackfield chat`` and ``jackfield complete`` against the real server, over a scripted door."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.core.server.fake_llm import FakeLLM, FakePlan
from tests.core.server.http_server import serving
from tests.waiting import PATIENCE_SECONDS, until

from jackfield.cli.main import main
from jackfield.contracts.generation import ChoiceDelta, Finish, GenerationRequest
from jackfield.contracts.text import Content, Event, Reasoning


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def says(*events: Event, pause: float = 0.0) -> FakeLLM:
    """A model whose every answer is these events, a step each."""

    async def script(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        for number, event in enumerate(events):
            await asyncio.sleep(pause)
            last = number == len(events) - 1
            text = event.text if isinstance(event, Content | Reasoning) else ""
            finish = Finish("stop") if last else None
            yield [ChoiceDelta(index=0, text=text, events=(event,), token_ids=(97,), finish=finish)]

    return FakeLLM(script, plan=FakePlan(reasoning_parser="qwen3"))


def asked(llm: FakeLLM) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in llm.prompts.last_chat["messages"]]


async def run(
    llm: FakeLLM, *words: str, stdin: str = "", **options: object
) -> tuple[int, str, str]:
    """The command in a process of its own -> (exit status, output, errors)."""
    async with serving(llm, **options) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jackfield", words[0], "--url", f"{url}/v1", *words[1:]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def test_a_quick_question_prints_its_answer_and_ends() -> None:
    llm = says(Content("hel"), Content("lo"))
    status, out, errors = await run(llm, "chat", "-q", "hi", "--system-prompt", "be kind")
    assert (status, out, errors) == (0, "hello\n", "")
    assert asked(llm) == [("system", "be kind"), ("user", "hi")]


async def test_a_conversation_remembers_until_it_is_cleared() -> None:
    llm = says(Content("yes"))
    status, out, _ = await run(llm, "chat", stdin="one\ntwo\n/clear\nthree\n/exit\nfour\n")
    assert (status, out) == (0, "yes\nyes\nyes\n")
    assert len(llm.requests) == 3
    assert asked(llm) == [("user", "three")]
    llm = says(Content("yes"))
    await run(llm, "chat", stdin="one\ntwo\n")
    assert asked(llm) == [("user", "one"), ("assistant", "yes"), ("user", "two")]


async def test_thinking_stands_before_the_answer_and_is_not_sent_back() -> None:
    llm = says(Reasoning("hm"), Content("42"))
    _, out, _ = await run(llm, "chat", "--no-thinking", stdin="q\nagain\n")
    assert out == "hm\n42\nhm\n42\n"
    assert asked(llm)[1] == ("assistant", "42")
    assert llm.prompts.last_chat["template_kwargs"]["enable_thinking"] is False


async def test_options_are_sent_and_bad_ones_are_told_without_ending_the_conversation() -> None:
    llm = says(Content("ok"))
    words = ("chat", "--max-tokens", "7", "--temperature", "0.5", "--model-name", "alias")
    await run(llm, *words, stdin="q\n")
    assert llm.requests[0].sampling.max_tokens == 7
    assert llm.requests[0].sampling.temperature == 0.5
    status, out, errors = await run(llm, "chat", "--temperature", "-1", stdin="a\nb\n")
    assert (status, out) == (0, "")
    assert errors.count("jackfield: error: the server answered 400: ") == 2
    assert "temperature" in errors


async def test_complete_goes_on_with_each_line() -> None:
    llm = says(Content(" world"))
    status, out, _ = await run(llm, "complete", "--max-tokens", "3", stdin="hello\nbig\n")
    assert (status, out) == (0, " world\n world\n")
    assert bytes(llm.requests[0].prompt_token_ids) == b"hello"


async def test_the_key_comes_from_an_option_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    llm = says(Content("in"))
    status, _, errors = await run(llm, "chat", "-q", "hi", api_keys=("secret",))
    assert status == 1 and "401" in errors and "Traceback" not in errors
    words = ("chat", "-q", "hi", "--api-key", "secret")
    assert (await run(llm, *words, api_keys=("secret",)))[:2] == (0, "in\n")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert (await run(llm, "chat", "-q", "hi", api_keys=("secret",)))[:2] == (0, "in\n")


async def test_ctrl_c_ends_the_answer_and_not_the_conversation(tmp_path: Path) -> None:
    llm = says(*[Content("on and ")] * 200, pause=0.05)
    async with serving(llm) as url:
        terminal, inside = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jackfield", "chat", "--url", f"{url}/v1"),
            stdin=inside,
            stdout=inside,
            stderr=inside,
            # A test run in the background ignores SIGINT, and its children would too.
            preexec_fn=heed_interrupts,
        )
        os.close(inside)
        await until_shown(terminal, b"> ")
        os.write(terminal, b"tell me\n")
        await until_shown(terminal, b"on and on")
        process.send_signal(signal.SIGINT)
        await until_shown(terminal, b"> ")
        os.write(terminal, b"more\n")
        await until_shown(terminal, b"on and on")
        assert [role for role, _ in asked(llm)] == ["user", "assistant", "user"]
        process.send_signal(signal.SIGINT)
        await until_shown(terminal, b"> ")
        os.write(terminal, b"\x04")
        assert await process.wait() == 0
        os.close(terminal)
        await until(lambda: not llm.active)
    assert llm.closed == 2


def heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


async def until_shown(terminal: int, expected: bytes) -> None:
    shown, deadline = b"", time.monotonic() + PATIENCE_SECONDS
    while expected not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0)[0]:
            shown += os.read(terminal, 4096)
        else:
            await asyncio.sleep(0.02)


def test_without_a_server_one_line_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "-q", "hi", "--url", "http://127.0.0.1:9/v1"]) == 1
    errors = capsys.readouterr().err
    assert "no server answers at http://127.0.0.1:9/v1" in errors
    assert errors.count("\n") == 1
    assert main(["complete", "-q", "hi", "--url", "ftp://x"]) == 1
    assert "not an http or https URL" in capsys.readouterr().err
