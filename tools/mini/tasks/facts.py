"""What people ask about Jackfield, with answers from its documentation."""

from __future__ import annotations

from dataclasses import dataclass

from tools.mini.example import Example, ask, says
from tools.mini.source import Source
from tools.mini.tasks.talk import asked


@dataclass(frozen=True, slots=True)
class Fact:
    """An answer, the ways to ask for it, and what an answer must hold to be right."""

    answer: str
    must_hold: str
    questions: tuple[str, ...]


def _fact(answer: str, must_hold: str, questions: str) -> Fact:
    return Fact(answer, must_hold, tuple(questions.strip().replace("\n", "|").split("|")))


FACTS = (
    _fact(
        "Jackfield is an LLM serving engine in Python: a small kernel and plugins. Any OpenAI client talks to it.",
        "serving engine",
        """What is Jackfield?|What's Jackfield?|Explain Jackfield|Tell me about Jackfield|What does Jackfield do?|Describe Jackfield
What is this project?|jackfield?|What is Jackfield for?|What kind of software is Jackfield?|What is jackfield used for?
Can you explain what Jackfield is?|What is Jackfield in one sentence?|Give me an overview of Jackfield|about jackfield""",
    ),
    _fact(
        "A jackfield is a panel of sockets. The kernel is the panel; everything that varies is a plug.",
        "panel of sockets",
        """Why is it called Jackfield?|What does the name Jackfield mean?|Where does the name Jackfield come from?|What is a jackfield?
Why the name Jackfield?|What does jackfield mean?|Explain the name Jackfield|meaning of the name jackfield
Why that name, Jackfield?|Who chose the name Jackfield?""",
    ),
    _fact(
        "Install it with `pipx install jackfield`.",
        "pipx install jackfield",
        """How do I install Jackfield?|How can I install Jackfield?|Install Jackfield|How is Jackfield installed?|How to install jackfield
How do I get Jackfield?|What is the command to install Jackfield?|installation?|How do I set up Jackfield?|Where do I get Jackfield?
how can i get jackfield on my machine?|I want to install Jackfield|jackfield installation""",
    ),
    _fact(
        "Run `jackfield serve MODEL`; MODEL is a directory or a name on the hub. Without MODEL it serves me.",
        "jackfield serve",
        """How do I serve a model?|How do I start the server?|How can I run a model?|How do I start Jackfield?|How do I use Jackfield?
What is the command to serve a model?|How to serve a model with Jackfield|How do I run Jackfield?|How do I serve another model?
start the server|How do I launch a server?|How do I load a larger model?|How can I serve Qwen3?|serve a model
How do I serve a model from the hub?""",
    ),
    _fact(
        "The server listens on port 8000; `--port` changes it.",
        "8000",
        """Which port does Jackfield use?|What is the default port?|On which port does the server listen?|How do I change the port?
What port does Jackfield listen on?|Which port is the default?|port?|How can I use another port?|What port is used?
Can I change the port of the server?|default port of jackfield|Where does the server listen?""",
    ),
    _fact(
        "A distribution with an entry point: `pip install` it and choose it by name. A single file is given with `--<kind>-plugin`.",
        "pip install",
        """How do I install a plugin?|How can I add a plugin?|How do I use a plugin?|How do plugins get installed?|Install a plugin
How do I add a plugin to Jackfield?|How to install plugins|How can I use my own plugin?|How do I get more plugins?
how do i add plugins|What do I do to install a plugin?|Can I install plugins?""",
    ),
    _fact(
        "`jackfield plugins list` shows every installed plugin without importing it.",
        "jackfield plugins list",
        """How do I list plugins?|Which plugins are installed?|How can I see the plugins?|Show the installed plugins|List the plugins
What is the command to list plugins?|How do I see installed plugins?|How do I find out which plugins I have?|list plugins
How can I list all the plugins?|Where do I see which plugins are there?""",
    ),
    _fact(
        "Write a class that satisfies the contract of its kind, with `name` and `api_version`, and name it in an entry point.",
        "contract",
        """How do I write a plugin?|How can I write my own plugin?|How are plugins made?|How do I create a plugin?|How do I make a plugin?
What does a plugin look like?|How to write a plugin for Jackfield|How do I develop a plugin?|What must a plugin have?
I want to write a plugin|write a plugin|How do I build a plugin?""",
    ),
    _fact(
        "A plugin is a class that satisfies a contract, found by name. Everything variable in Jackfield is one.",
        "class that satisfies a contract",
        """What is a plugin?|What are plugins?|What is a plugin in Jackfield?|Explain plugins|What is a Jackfield plugin?
What do plugins do?|What are plugins for?|Tell me about plugins|What can be a plugin?|plugins?|Does Jackfield have plugins?""",
    ),
    _fact(
        "Kinds are tool parsers, reasoning parsers, schedulers, executors, workers, models, load formats, attention backends, tokenizers, platforms and more.",
        "schedulers",
        """Which kinds of plugins are there?|What kinds of plugins exist?|Name the plugin kinds|Which plugin kinds does Jackfield have?
What plugin types are there?|List the kinds of plugins|What kinds of plugin can I write?|plugin kinds|What can I plug in?
How many kinds of plugins are there?""",
    ),
    _fact(
        "Two: `fcfs`, first come, first served, and `priority`. `--scheduling-policy` chooses.",
        "priority",
        """Which schedulers are there?|What schedulers does Jackfield have?|Name the schedulers|How do I choose a scheduler?
Which scheduling policies are there?|What scheduler is the default?|How are requests scheduled?|list the schedulers|schedulers?
How do I change the scheduler?|What are the scheduling policies?""",
    ),
    _fact(
        "Choose a tool parser with `--tool-call-parser`, for example `hermes`; then send `tools` in the chat request.",
        "--tool-call-parser",
        """How do I use tools?|How does tool calling work?|Does Jackfield support tool calls?|How do I enable tool calling?
How do I use function calling?|Which tool parsers are there?|Can models call tools?|tool calling?|Does it support function calling?
How can I make a model call tools?|How do I turn on tool calls?|What is a tool parser?""",
    ),
    _fact(
        "Choose a reasoning parser with `--reasoning-parser`: `qwen3` or `deepseek_r1`.",
        "--reasoning-parser",
        """How do I use a reasoning model?|Which reasoning parsers are there?|How does Jackfield handle thinking?|What is a reasoning parser?
How do I separate thinking from the answer?|How do I enable reasoning?|Does Jackfield support reasoning models?|reasoning parser?
How can I parse the thinking?|How do I get the reasoning of a model?|How do I choose a reasoning parser?""",
    ),
    _fact(
        'Send `chat_template_kwargs` with `"enable_thinking": false`, or end the message with /no_think.',
        "enable_thinking",
        """How do I turn off thinking?|How can I disable thinking?|Can I turn thinking off?|How do I stop the model from thinking?
How do I switch off the reasoning?|Disable thinking|How do I get answers without thinking?|turn thinking off
How do I make you not think?|I do not want thinking""",
    ),
    _fact(
        "Qwen3, Qwen2, Llama and Mistral have code of their own; every other causal model runs through transformers.",
        "Llama",
        """Which models does Jackfield support?|What models can I run?|Which models are supported?|Can it run Llama?|Does it support Qwen3?
Which architectures are supported?|What models does Jackfield serve?|Does Jackfield run Mistral?|supported models?
Can I use my own model?|Which model architectures can Jackfield run?|list of supported models""",
    ),
    _fact(
        "Yes. The same engine runs on a CPU and on a GPU; `--device` chooses.",
        "CPU",
        """Does Jackfield run on a CPU?|Do I need a GPU?|Can I use Jackfield without a GPU?|Does it work on a laptop?|Is a GPU required?
Does it run on GPUs?|Which devices does Jackfield support?|Can it run on a CPU?|Which hardware do I need?|cpu support?
Can I run this on my laptop?|Does Jackfield use the GPU?""",
    ),
    _fact(
        "Python 3.11 to 3.13.",
        "3.11",
        """Which Python version do I need?|Which Python versions are supported?|What Python does Jackfield need?|Does it work with Python 3.12?
What version of Python is required?|Which Python does it run on?|python version?|Which Python should I use?
Is Python 3.13 supported?|What are the requirements?""",
    ),
    _fact(
        "Jackfield is free software under the Apache-2.0 license.",
        "Apache-2.0",
        """What is the license?|Which license does Jackfield have?|Is Jackfield open source?|Is Jackfield free?|What license is it under?
Under which license is Jackfield?|Can I use Jackfield for free?|license?|Can I use it commercially?|What does Jackfield cost?
Is it free software?""",
    ),
    _fact(
        "Yes. It speaks OpenAI's HTTP API: set the client's base URL to http://127.0.0.1:8000/v1.",
        "/v1",
        """Is Jackfield compatible with OpenAI?|Does it speak the OpenAI API?|Can I use the OpenAI client?|How do I connect a client?
What is the base URL?|How do I talk to the server from Python?|Which API does Jackfield have?|Can I use the OpenAI SDK?
How do I call the server?|openai compatible?|How do I connect with the OpenAI SDK?|What API does the server offer?""",
    ),
    _fact(
        "Pass `--api-key KEY`; clients then send `Authorization: Bearer KEY`.",
        "--api-key",
        """How do I set an API key?|How do I protect the server?|Is there authentication?|How can I use an API key?|Does Jackfield check API keys?
How do I secure the server?|Can I require an API key?|api key?|How do I add authentication?|How do clients authenticate?
Do I need an API key?""",
    ),
    _fact(
        "`GET /metrics` gives Prometheus metrics.",
        "/metrics",
        """Where are the metrics?|Does Jackfield have metrics?|How do I monitor the server?|Does it support Prometheus?|How do I get metrics?
What can I monitor?|Is there a metrics endpoint?|metrics?|How can I monitor Jackfield?|Where do I find Prometheus metrics?""",
    ),
    _fact(
        "`GET /health` is 200 while requests are served, else 503.",
        "/health",
        """How do I check whether the server is healthy?|Is there a health check?|What is the health endpoint?|How do I know that the server is ready?
Which route is the health check?|How do I see whether it is up?|health check?|Is there a readiness probe?
How can I check the health of the server?|What does /health do?""",
    ),
    _fact(
        "`jackfield bench latency`, `throughput` and `serve` measure it.",
        "jackfield bench",
        """How do I measure the speed?|How can I benchmark Jackfield?|Is there a benchmark?|How do I run a benchmark?|How fast is Jackfield?
How do I measure throughput?|How do I measure latency?|benchmark?|What is the benchmark command?|How can I test the performance?""",
    ),
    _fact(
        "`jackfield serve --explain-startup` shows where the time goes, phase by phase.",
        "--explain-startup",
        """Why does the start take long?|How do I see the startup time?|How can I look into a slow start?|What takes so long at startup?
How do I profile the start?|Is there a timeline of the start?|How do I explain the startup?|startup time?
How can I find out why the start is slow?|Where does the startup time go?""",
    ),
    _fact(
        "`--safe-mode` runs bundled plugins only.",
        "--safe-mode",
        """What is the safe mode?|How do I start without plugins?|How can I turn off third-party plugins?|What does --safe-mode do?
How do I run only bundled plugins?|A plugin breaks my server, what can I do?|safe mode?|How do I disable all plugins?
How do I start with bundled plugins only?|Is there a safe mode?""",
    ),
    _fact(
        "Hooks listen in: middleware, routes, filters, metrics. They are found in the entry-point group `jackfield.hooks`.",
        "jackfield.hooks",
        """What are hooks?|What is a hook?|How do hooks work?|How do I write a hook?|Does Jackfield have hooks?|Which hooks are there?
How do I add middleware?|hooks?|How do I listen to requests?|How can I add a route?|Explain hooks""",
    ),
    _fact(
        "Two: the API process speaks HTTP and text, and the engine process computes. A unix socket joins them.",
        "engine process",
        """How many processes are there?|Which processes does Jackfield have?|How is Jackfield built?|What is the architecture of Jackfield?
What does the engine process do?|What does the API process do?|How do the processes talk?|architecture?
Explain the architecture|How is Jackfield structured?|What is the structure of Jackfield?""",
    ),
    _fact(
        "The kernel is the small core: paged KV cache, attention, and the step loop. It imports no plugin.",
        "step loop",
        """What is the kernel?|What does the kernel do?|What is in the kernel?|What is the kernel of Jackfield?|Explain the kernel
How large is the kernel?|kernel?|What belongs to the kernel?|What is Jackfield's core?|Which parts are in the kernel?""",
    ),
    _fact(
        "A paged KV cache keeps keys and values in blocks, so that no memory is reserved in vain and prefixes are shared.",
        "blocks",
        """What is a paged KV cache?|What is the KV cache?|How does the KV cache work?|Why is the KV cache paged?|Explain the KV cache
What is paged attention?|What are KV blocks?|kv cache?|What does the KV cache do?|How is the cache organized?""",
    ),
    _fact(
        "Prefix caching keeps the KV of prompts for later ones with the same beginning. It is on by default.",
        "same beginning",
        """What is prefix caching?|Does Jackfield cache prompts?|Is prefix caching on?|How does prefix caching work?|Explain prefix caching
How do I enable prefix caching?|Are prompts cached?|prefix caching?|Does Jackfield have a prefix cache?
Can the KV of a prompt be used again?""",
    ),
    _fact(
        "`--max-model-len` limits the context, prompt and output; it takes values such as 32k.",
        "--max-model-len",
        """How do I limit the context length?|How do I set the context length?|What does --max-model-len do?|How can I shorten the context?
How do I change the maximum length?|How do I set the maximum model length?|How do I allow longer prompts?
How can I set the context size of the server?|How do I reduce the context?|which flag sets the context length""",
    ),
    _fact(
        "On the command line, in `JACKFIELD_...` variables, in a YAML file with `--config`, or as arguments of `LLM`.",
        "--config",
        """How do I configure Jackfield?|Where are the options?|Can I use a config file?|How do I set options?|Which environment variables are there?
How do I use a YAML file?|How can I set an option?|configuration?|Is there a config file?|Where do I put the configuration?
How is Jackfield configured?""",
    ),
    _fact(
        'Use the class `LLM`: `with LLM("path/to/model") as llm: llm.generate("Once upon a time")`.',
        "LLM",
        """How do I use Jackfield without a server?|Can I use Jackfield from Python?|How do I generate text in a script?|Is there a Python API?
How do I use the LLM class?|How do I run a model offline?|Can I call it from my program?|python api?
How can I use Jackfield in Python code?|What is the LLM class?""",
    ),
    _fact(
        "Press Ctrl-C. Running requests finish first; a second Ctrl-C ends it at once.",
        "Ctrl-C",
        """How do I stop the server?|How do I end Jackfield?|How can I shut the server down?|Stop the server|How do I quit the server?
What happens on SIGTERM?|How do I shut down Jackfield?|shutdown?|How do I kill the server?|How can I stop Jackfield?""",
    ),
    _fact(
        'Send `"stream": true`; tokens then come as server-sent events.',
        "stream",
        """How do I stream an answer?|Does Jackfield support streaming?|How does streaming work?|Can I get tokens one by one?|How do I enable streaming?
How can I stream tokens?|Can answers be streamed?|streaming?|How do I get a streamed response?|Is streaming supported?""",
    ),
    _fact(
        "`auto`, `safetensors`, `pt` and `dummy`; `--load-format` chooses.",
        "safetensors",
        """Which load formats are there?|How are weights loaded?|What file formats does Jackfield read?|Which weight formats are supported?
How do I choose a load format?|Can it read safetensors?|What is a load format?|load formats?|How do I load weights?
Does Jackfield load pt files?""",
    ),
    _fact(
        "Kits in `jackfield.testing` run the kernel's laws on a plugin with pytest.",
        "jackfield.testing",
        """How do I test a plugin?|How can I test my plugin?|Is there a test kit for plugins?|What is jackfield.testing?|How do I check a plugin?
What are the conformance kits?|How do I know that my plugin works?|test kit?|How do I verify a plugin?
Are there tests for plugin authors?""",
    ),
    _fact(
        "Set `temperature` in the request; 0 takes the most probable token each time.",
        "temperature",
        """How do I set the temperature?|What is the temperature?|How do I get the same answer each time?|How do I change the sampling?
How do I make answers less random?|What does temperature 0 do?|temperature?|How do I use greedy decoding?
How can I make the output deterministic?|Which sampling parameters are there?""",
    ),
    _fact(
        "In docs/: start with docs/structure.md, one page. `jackfield serve --help` tells every option.",
        "docs/",
        """Where is the documentation?|Is there documentation?|Where can I read more?|Where are the docs?|How do I learn more about Jackfield?
Where do I find help?|What should I read first?|docs?|documentation?|Where can I learn how Jackfield works?""",
    ),
    _fact(
        "It may be the context or the memory: lower `--max-model-len` or `--gpu-memory-utilization`.",
        "--gpu-memory-utilization",
        """I am out of memory, what can I do?|The server runs out of memory|How do I use less memory?|What do I do about out of memory errors?
How can I reduce the memory?|It says out of memory|Jackfield needs too much memory|How do I save GPU memory?
CUDA out of memory, help|How do I lower the memory use?""",
    ),
)


def fact(source: Source) -> Example:
    """A question about Jackfield."""
    chosen = source.pick(FACTS)
    return Example(
        task="facts",
        messages=ask(asked(chosen.questions, source)),
        thought="This is about Jackfield.",
        answer=chosen.answer,
        check=says(chosen.must_hold),
    )
