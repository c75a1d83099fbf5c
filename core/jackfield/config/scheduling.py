"""How much a step computes, and who runs in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from jackfield.config.values import HumanInt, OptionGroup, Spelling


class SchedulingOptions(OptionGroup):
    """Scheduling"""

    max_num_batched_tokens: HumanInt | None = Field(
        None, ge=1, description="tokens computed in a step; default: 4096 on a GPU, 1024 on the CPU"
    )
    max_num_seqs: Annotated[HumanInt | None, Spelling("--max-running-requests")] = Field(
        None, ge=1, description="sequences in a step; default: 256 on a GPU, 64 on the CPU"
    )
    max_num_partial_prefills: int = Field(
        1,
        ge=1,
        description="prompts that share a step, each computed in part; 1: no limit but the step's",
    )
    max_long_partial_prefills: int = Field(
        1, ge=1, description="of these, how many may be long ones"
    )
    long_prefill_token_threshold: HumanInt = Field(
        0, ge=0, description="prompt tokens of one request in a step, at most; 0: no limit"
    )
    scheduler_delay_factor: float = Field(
        0.0,
        ge=0,
        description="times the last step with a prompt that the next prompt waits for company",
    )
    enable_chunked_prefill: bool = Field(True, description="compute long prompts over many steps")
    scheduling_policy: str = Field(
        "fcfs", description="queue_policies or schedulers plugin: fcfs, priority or a name"
    )
    scheduler_cls: str | None = Field(
        None, description="schedulers plugin by name or module:Class; default: as the policy needs"
    )
    num_scheduler_steps: int | None = Field(
        None, ge=1, le=8, description="steps enqueued at once; default: as the device needs"
    )
    stream_interval: int = Field(
        1, ge=1, le=1024, description="steps whose tokens are sent together; the first never waits"
    )
    multi_step_stream_outputs: bool = Field(
        True, description="send every step's tokens; off: those of the steps enqueued at once"
    )
    disable_async_output_proc: bool = Field(
        False, description="never be a step ahead of the device; for debugging"
    )
