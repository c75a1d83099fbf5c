"""Whether the model is served for vectors or scores, and how they are made of its hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from jackfield import checkpoint
from jackfield.config.plan import PoolerPlan
from jackfield.config.settings import Settings
from jackfield.config.suggestion import did_you_mean
from jackfield.errors import ConfigError
from jackfield.planning.model import ANY_MODEL, ModelFiles
from jackfield.registry import Registry
from jackfield.text.tokenizer import load_tokenizer

Task = Literal["embed", "classify"]
Activation = Literal["none", "sigmoid", "softmax", "yes_no"]

_CAUSAL, _CLASSIFIER = "ForCausalLM", "ForSequenceClassification"
_BARE = "Model"
_FLAG = "--override-pooler-config"
_ENCODER = "encoder"
"""The trait of models whose tokens see what follows them."""
_HEADS = (_CAUSAL, "ForMaskedLM")
_BIDIRECTIONAL = "BidirectionalModel"
"""Any decoder whose tokens see what follows them."""
_TWO_WAY = "from_2_way_softmax"
_TASKS: Mapping[str, Task] = {
    "embed": "embed",
    "embedding": "embed",
    "classify": "classify",
    "score": "classify",
    "reward": "classify",
}
_POOLING_TYPES = {"LAST": "last", "MEAN": "mean", "CLS": "cls", "ALL": "all"}
_MAX_STEP_BYTES = 48 << 20
"""Of the vectors of one step, which cross the border between two processes in one message."""
_KEYS = ("pooling_type", "normalize", "use_activation", "dimensions")
_OLDER_KEYS = {
    "activation": "use_activation",
    "seq_pooling_type": "pooling_type",
    "softmax": "use_activation",
}


@dataclass(frozen=True, slots=True)
class PoolingPlan:
    """What requests end in, and what is done to it unless they say otherwise.

    ``task``: ``embed`` (a hidden state) or ``classify`` (a score for each of ``labels``).
    ``activation`` makes probabilities of scores; ``yes_no`` makes one of the two logits of no and
    yes. ``matryoshka``: the dimensions that an embedding may be cut to, empty for any, None for
    none; ``dimensions`` is what it is cut to unless a request says so.
    """

    task: Task
    pooler: PoolerPlan
    normalize: bool = True
    use_activation: bool = True
    activation: Activation = "none"
    labels: tuple[str, ...] = ()
    matryoshka: tuple[int, ...] | None = None
    dimensions: int | None = None
    whole_prompts: bool = False
    """Whether tokens see what follows them: a prompt is computed in one step, or not at all."""
    max_tokens: int | None = None
    """What texts are cut to where the model was trained, None if that is not known."""
    token_bytes: int = 0
    """Where every token has a vector of its own: how long it is, in float32. 0: one a prompt."""

    @property
    def by_token(self) -> bool:
        """Whether every token has a vector of its own."""
        return self.token_bytes > 0

    @property
    def served_for(self) -> str:
        """The task by the name that requests call it."""
        return f"token_{self.task}" if self.by_token else self.task

    @property
    def max_step_tokens(self) -> int | None:
        """The most tokens that a step may compute; None: as many as it likes."""
        return _MAX_STEP_BYTES // self.token_bytes if self.by_token else None

    @property
    def keeps_prefixes(self) -> bool:
        """Whether a vector can be made without computing a prefix that others have computed."""
        return self.pooler.kind == "last" and not self.whole_prompts

    @property
    def scores_pairs(self) -> bool:
        """Whether a pair of texts is one prompt, scored by the model itself."""
        return self.task == "classify" and len(self.labels) == 1 and not self.by_token


def plan_pooling(
    settings: Settings, files: ModelFiles, registry: Registry
) -> tuple[PoolingPlan | None, ModelFiles]:
    """The plan, None for a model that generates; the files with the architecture that it needs.

    ``ConfigError`` where the model cannot do what was asked for.
    """
    sentence = checkpoint.read_sentence_pooling(files.directory)
    named = files.config.get("architectures")
    names = tuple(map(str, named)) if isinstance(named, list) else ()
    task = _task(settings, names, is_sentence_model=sentence is not None)
    sees_all = _sees_what_follows(files.config, names, registry)
    if sees_all and (task != "embed" or settings.model_impl == ANY_MODEL):
        raise ConfigError(
            "config.json has is_causal false: a decoder of this kind makes embeddings (--task "
            "embed, no --model-impl) and nothing else"
        )
    if task is None:
        if settings.override_pooler_config:
            raise ConfigError(f"{_FLAG} is for pooling models; give --task embed")
        return None, files
    options = _options(settings)
    wanted = [_bare(name, registry) for name in names] if task == "embed" else list(names)
    if sees_all:
        wanted = [_BIDIRECTIONAL]
    is_encoder = any(registry.has_trait("models", name, _ENCODER) for name in wanted)
    default = _default_kind(files.config, task, is_encoder=is_encoder and not sees_all)
    if task == "embed" and sentence is not None:
        default = sentence.kind
    kind = _POOLING_TYPES.get(options.get("pooling_type", ""), default)
    if task == "embed":
        embed = PoolingPlan(
            task,
            PoolerPlan(kind=kind),
            normalize=options.get("normalize", sentence is None or sentence.normalize),
            matryoshka=_matryoshka(files.config),
            dimensions=options.get("dimensions"),
            whole_prompts=is_encoder,
            max_tokens=None if sentence is None else sentence.max_tokens,
            token_bytes=4 * _hidden_size(files.config) if kind == "all" else 0,
        )
        if settings.model_impl == ANY_MODEL:
            return embed, files
        return embed, _with_architectures(files, wanted)
    plan, wanted = _classifier(settings, files, names, kind, registry)
    use_activation = options.get("use_activation", settings.task != "reward")
    plan = replace(
        plan,
        use_activation=use_activation,
        whole_prompts=is_encoder,
        token_bytes=4 * len(plan.labels) if kind == "all" else 0,
    )
    return plan, _with_architectures(files, wanted)


def _task(settings: Settings, names: Sequence[str], *, is_sentence_model: bool) -> Task | None:
    """What was asked for, else what the checkpoint is made for; None: it generates."""
    asked = _TASKS.get(settings.task)
    if settings.convert in _TASKS:
        asked = asked or _TASKS[settings.convert]
    if settings.runner == "generate" or settings.task == "generate":
        if asked is not None or settings.runner == "pooling":
            raise ConfigError("--task, --runner and --convert contradict each other: give one")
        return None
    if asked is not None:
        return asked
    if any(name.endswith(_CLASSIFIER) for name in names):
        return "classify"
    is_bare = any(name.endswith(_BARE) and not name.endswith("LMHeadModel") for name in names)
    return "embed" if is_bare or is_sentence_model or settings.runner == "pooling" else None


def _options(settings: Settings) -> dict[str, Any]:
    """``--override-pooler-config``, checked, by its newer names."""
    options: dict[str, Any] = {}
    for given, value in settings.override_pooler_config.items():
        name = _OLDER_KEYS.get(given, given)
        if name not in _KEYS:
            raise ConfigError(f"{_FLAG} has the unknown key {given!r}{did_you_mean(given, _KEYS)}")
        if value is not None:
            options[name] = value
    kind = options.get("pooling_type")
    if kind is not None:
        options["pooling_type"] = str(kind).upper()
        if options["pooling_type"] not in _POOLING_TYPES:
            known = ", ".join(_POOLING_TYPES)
            raise ConfigError(f"{_FLAG}: pooling_type {kind!r} is not built; there are {known}")
    for name in ("normalize", "use_activation"):
        if not isinstance(options.get(name, True), bool):
            raise ConfigError(f"{_FLAG}: {name} must be true or false")
    dimensions = options.get("dimensions", 1)
    if type(dimensions) is not int or dimensions < 1:
        raise ConfigError(f"{_FLAG}: dimensions must be a whole number above 0")
    return options


def _sees_what_follows(
    config: Mapping[str, object], names: Sequence[str], registry: Registry
) -> bool:
    """Whether a decoder has been made an encoder; those that always were one say the same."""
    if config.get("is_causal") is not False:
        return False
    return not any(
        registry.has_trait("models", each, _ENCODER)
        for name in names
        for each in (name, _bare(name, registry))
    )


def _bare(name: str, registry: Registry) -> str:
    """The architecture without its head, where there is a plugin for that."""
    for head in _HEADS:
        bare = name.removesuffix(head) + _BARE
        if name.endswith(head) and registry.offers("models", bare):
            return bare
    return name


def _with_architectures(files: ModelFiles, names: Sequence[str]) -> ModelFiles:
    return replace(files, config={**files.config, "architectures": list(names)})


def _matryoshka(config: Mapping[str, object]) -> tuple[int, ...] | None:
    listed = config.get("matryoshka_dimensions")
    if isinstance(listed, list):
        return tuple(each for each in listed if type(each) is int)
    return () if config.get("is_matryoshka") is True else None


def _classifier(
    settings: Settings, files: ModelFiles, names: Sequence[str], kind: str, registry: Registry
) -> tuple[PoolingPlan, list[str]]:
    """The plan of a model that scores labels, and its architectures."""
    config = files.config
    tokens = config.get("classifier_from_token")
    if tokens is None:
        if not any(name.endswith(_CLASSIFIER) for name in names):
            raise ConfigError(
                f"{', '.join(names)} has no head for --task {settings.task}; a reranker that "
                "answers with words names them: --hf-overrides "
                '\'{"classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": true}\''
            )
        labels = _labels(config)
        pooler = PoolerPlan(kind=kind, scores=True)
        plan = PoolingPlan(
            "classify",
            pooler,
            activation=_activation(config, len(labels)),
            labels=labels,
        )
        return plan, list(names)
    if kind == "all":
        raise ConfigError(f"{_FLAG}: a reranker that answers with words has no pooling_type ALL")
    ids = _token_ids(tokens, settings, files, registry)
    by_two = config.get("is_original_qwen3_reranker") or config.get("method") == _TWO_WAY
    if by_two and len(ids) != 2:
        raise ConfigError("classifier_from_token must name two tokens, as for no and yes")
    labels = ("LABEL_0",) if by_two else tuple(f"LABEL_{i}" for i in range(len(ids)))
    activation: Activation = "yes_no" if by_two else _activation(config, len(ids))
    pooler = PoolerPlan(kind=kind, scores=True, token_ids=ids)
    plan = PoolingPlan("classify", pooler, activation=activation, labels=labels)
    return plan, [
        name.removesuffix(_CLASSIFIER) + _CAUSAL if name.endswith(_CLASSIFIER) else name
        for name in names
    ]


def _default_kind(config: Mapping[str, object], task: Task, *, is_encoder: bool) -> str:
    """Where a model of this type has learned to gather what it makes of a text."""
    if not is_encoder:
        return "last"
    by_mean = task == "classify" and config.get("classifier_pooling") == "mean"
    return "mean" if by_mean else "cls"


def _hidden_size(config: Mapping[str, object]) -> int:
    """Of ``config.json``, by the names that it has there."""
    for name in ("hidden_size", "n_embd", "d_model", "dim"):
        size = config.get(name)
        if isinstance(size, int):
            return size
    raise ConfigError(f"{_FLAG}: pooling_type ALL needs a hidden_size in config.json")


def _labels(config: Mapping[str, object]) -> tuple[str, ...]:
    """Names of the labels; transformers' where ``config.json`` has none."""
    named = config.get("id2label")
    if isinstance(named, Mapping) and named:
        # The keys are numbers as text: shorter ones are lower.
        keys = sorted(map(str, named), key=lambda key: (len(key), key))
        by_text = {str(key): str(name) for key, name in named.items()}
        return tuple(by_text[key] for key in keys)
    count = config.get("num_labels")
    return tuple(f"LABEL_{index}" for index in range(count if isinstance(count, int) else 2))


def _activation(config: Mapping[str, object], num_labels: int) -> Activation:
    """How scores become probabilities; a reranker's own word goes first."""
    own = config.get("sentence_transformers")
    newer = own.get("activation_fn") if isinstance(own, Mapping) else None
    function = str(newer or config.get("sbert_ce_default_activation_function"))
    if function.endswith("Identity") or config.get("problem_type") == "regression":
        return "none"
    if function.endswith("Sigmoid") or config.get("problem_type") == "multi_label_classification":
        return "sigmoid"
    return "sigmoid" if num_labels == 1 else "softmax"


def _token_ids(
    tokens: object, settings: Settings, files: ModelFiles, registry: Registry
) -> tuple[int, ...]:
    """Ids of the words that a model answers with."""
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) for t in tokens):
        raise ConfigError("classifier_from_token must be a list of tokens")
    if settings.skip_tokenizer_init:
        raise ConfigError("classifier_from_token needs a tokenizer: no --skip-tokenizer-init")
    tokenizer = load_tokenizer(
        registry, settings.tokenizer_mode, str(files.tokenizer), settings.trust_remote_code
    )
    found = []
    for token in tokens:
        ids = tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise ConfigError(f"classifier_from_token: {token!r} is not one token of this model")
        found.append(ids[0])
    return tuple(found)
