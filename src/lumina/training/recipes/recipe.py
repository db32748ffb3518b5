"""What recipes of all tasks have."""

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lumina.settings import setting

if TYPE_CHECKING:
    from lumina.training.trainer import Objective

# Settings that a run may change between a stop and a resume.
CHANGEABLE = {
    "out",
    "device",
    "log_every",
    "preview_every",
    "validate_every",
    "save_minutes",
    "keep_states",
    "keep_every",
    "replicas",
    "context_parallel",
    "context_parallel_by",
    "checkpoint_activations",
    "compile",
    "tensorboard",
    "save_rank",
    "cache",
    "prompts",
    "preview_steps",
    "preview_guidance",
    "save_dtype",
    "lora_merge",
    "parts_of",
    "usual_size",
    "usual_steps",
    "usual_guidance",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every training run has."""

    task: ClassVar[str]
    """What a file calls a run of this kind."""

    out: str = setting("", "folder of the run")
    seed: int = setting(0, "seed of weights, data and noise", ge=0)
    steps: int = setting(1000, "optimizer steps", ge=1)
    batch_size: int = setting(64, "samples in a batch (of the largest size)", ge=1)
    accumulate: int = setting(1, "batches in a step", ge=1)
    device: str = setting("auto", "where to compute: cpu, cuda, cuda:1, mps")
    learning_rate: float = setting(2e-3, "peak learning rate", ge=0)
    adam_scale: float = setting(1.0, "learning rate of AdamW relative to that of Muon", ge=0)
    matrix_optimizer: str = setting(
        "muon",
        "optimizer of hidden matrices; adamw8bit, of all, keeps its averages in a quarter of the"
        " memory",
        choices=("muon", "adamw", "adamw8bit"),
    )
    weight_decay: float = setting(0.0, "decoupled weight decay of matrices", ge=0)
    warmup: int = setting(100, "steps of linear warm-up", ge=0)
    decay: float = setting(0.3, "share of the run in which the rate falls to 0", ge=0, le=1)
    precision: str = setting(
        "fp32",
        "of the products of matrices; weights are fp32. auto: bf16 on devices that are fast at it",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    clip: float = setting(1.0, "largest norm of the gradient; 0: any", ge=0)
    spike: float = setting(
        0.0, "stop where the gradient has this many times its usual norm; 0 never does", ge=0
    )
    checkpoint_activations: bool = setting(
        False, "compute each block again for its gradient, in less memory"
    )
    compile: bool = setting(False, "compile the blocks")
    replicas: int = setting(
        1, "groups of processes that hold all weights each; 1 spreads them over all", ge=1
    )
    context_parallel: int = setting(
        1, "neighbouring processes that share the tokens of each sample", ge=1
    )
    context_parallel_by: str = setting(
        "ulysses",
        "how: each takes some heads of all tokens, or keys and values go round a ring",
        choices=("ulysses", "ring"),
    )
    ema: float = setting(0.999, "memory of the average of the weights", ge=0, le=1)
    log_every: int = setting(50, "steps between lines of progress", ge=1)
    preview_every: int = setting(1000, "steps between preview pictures", ge=1)
    validate_every: int = setting(0, "steps between measurements on unseen data; 0: none", ge=0)
    save_minutes: float = setting(5.0, "minutes between saved states", ge=0)
    keep_states: int = setting(2, "how many of the latest states stay", ge=1)
    keep_every: int = setting(0, "steps whose multiples stay for good; 0: none", ge=0)
    tensorboard: bool = setting(False, "write a log that TensorBoard reads")

    def check(self) -> None:
        """Refuse settings that do not go together, before anything loads.

        Raises:
            LuminaError: If some do not.
        """

    def settled(self) -> "Recipe":
        """The same with what depends on the machine chosen: the precision, where it is "auto".

        Raises:
            LuminaError: If there is no such device.
        """
        if self.precision != "auto":
            return self
        from lumina.devices import is_fast_at_bfloat16, pick_device

        is_fast = is_fast_at_bfloat16(pick_device(self.device))
        return dataclasses.replace(self, precision="bf16" if is_fast else "fp32")

    def make_objective(self) -> "Objective":
        """What this run trains."""
        raise NotImplementedError

    def to_json(self) -> str:
        """All settings, as text that is stored with the weights."""
        return json.dumps({"task": self.task} | dataclasses.asdict(self))

    def changes_since(self, saved: str) -> dict[str, tuple[Any, Any]]:
        """Settings that differ from a stored recipe and matter to the weights, then and now.

        A setting that was added to the library since then had its default.
        """
        now, then = json.loads(self.to_json()), json.loads(saved)
        then = json.loads(type(self)().to_json()) | then
        names = (now.keys() | then.keys()) - CHANGEABLE
        return {
            name: (then.get(name), now.get(name))
            for name in sorted(names)
            if now.get(name) != then.get(name)
        }
