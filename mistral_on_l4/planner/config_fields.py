"""The fields of a config.json under all the names that families give them, with the defaults that a family's config class has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mistral_on_l4.planner.plan import PlanError

# One field under the names that different model families give it.
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
HIDDEN = ("hidden_size", "n_embd", "d_model")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS = ("num_key_value_heads", "multi_query_group_num")
HEAD_SIZE = ("head_dim", "kv_channels")
# vLLM takes the smallest of those that are given (config/model.py), and model_max_length before all (Command R).
POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
OWN_LIMIT = "model_max_length"
WIDTHS = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")
VOCABULARY = ("padded_vocab_size", "vocab_size")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token")


class Fields:
    """One object of a config.json. What it leaves out its family's defaults fill in."""

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any], source: str) -> None:
        self.given, self.defaults, self.source = given, defaults, source

    def get(self, *names: str) -> Any:
        """The first of the names that is given and not null, else the first that has a default; None if there is neither.

        A null that is written down overrules the default, as in transformers: then there is no value.
        """
        given = [self.given[name] for name in names if name in self.given]
        if given:
            return next((value for value in given if value is not None), None)
        return next((self.defaults[name] for name in names if self.defaults.get(name) is not None), None)

    def flag(self, name: str, otherwise: bool = False) -> bool:
        value = self.get(name)
        return otherwise if value is None else bool(value)

    def whole(self, names: tuple[str, ...]) -> int | None:
        """A whole number, None if it is not there. Raises PlanError for anything else."""
        value = self.get(*names)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        name = next(name for name in names if self.given.get(name) is not None)
        raise PlanError(
            f"{self.source}: not computed: {name} is {str(value)[:40]}, not a whole number: the planner does not compute that"
        )

    def number(self, names: tuple[str, ...]) -> int:
        """A whole number above zero. Raises PlanError where there is none."""
        value = self.get(*names)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        given = next((f"{name} is {self.given[name]!r}" for name in names if name in self.given), f"there is no {names[0]}")
        raise PlanError(f"{self.source}: {given}: not the config.json of a decoder-only transformer")

    def items(self, name: str) -> list[Any]:
        value = self.given.get(name) or []
        if not isinstance(value, list):
            raise PlanError(f"{self.source}: {name} is {value!r}, not a list")
        return value
