"""Tokenizer files of the generated checkpoints: control tokens, the 256 bytes, and pairs of letters until the vocabulary is full.

Both files say the same, so that whichever a program takes finds a token for every id of the model: vLLM takes tekken.json wherever
it lies, and mistral_common refuses one with fewer tokens than it declares.
"""

from __future__ import annotations

import base64
from typing import Any

from embedded.hub.checkpoints import CONTROL_TOKENS, VOCABULARY

# Mistral's names of the first control tokens; the rest are fillers, as in the real tokenizer.
_NAMED = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)
_NAMED_2 = (
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
)

# 30 characters: more pairs than there is room for.
_PAIRED = " etaoinshrdlcumwfgypbvkjxqz.,'"

_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}[SYSTEM_PROMPT]{{ message['content'] }}[/SYSTEM_PROMPT]"
    "{% elif message['role'] == 'user' %}[INST]{{ message['content'] }}[/INST]"
    "{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def control_tokens() -> tuple[str, ...]:
    named = (*_NAMED, *_NAMED_2, "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]")
    return (*named, *(f"<SPECIAL_{number}>" for number in range(len(named), CONTROL_TOKENS)))


def _byte_symbols() -> tuple[str, ...]:
    """One printable character per byte, as byte-level BPE writes them: printable Latin-1 stands for itself."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = {byte: chr(byte) for byte in plain}
    for offset, byte in enumerate(byte for byte in range(256) if byte not in symbols):
        symbols[byte] = chr(256 + offset)
    return tuple(symbols[byte] for byte in range(256))


def pairs() -> tuple[str, ...]:
    """Two characters each, as many as the vocabulary has room for after control tokens and bytes."""
    room = VOCABULARY - CONTROL_TOKENS - 256
    return tuple(first + second for first in _PAIRED for second in _PAIRED)[:room]


def tokenizer_json() -> dict[str, Any]:
    controls = control_tokens()
    symbols = _byte_symbols()
    merges = [[symbols[byte] for byte in pair.encode()] for pair in pairs()]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocabulary = {token: number for number, token in enumerate((*controls, *symbols, *map("".join, merges)))}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **flags} for number, token in enumerate(controls)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def tokenizer_config() -> dict[str, Any]:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "chat_template": _CHAT_TEMPLATE,
        "model_max_length": 32768,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def special_tokens_map() -> dict[str, str]:
    return {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def tekken() -> dict[str, Any]:
    """tekken.json, the native tokenizer file."""
    return {
        "config": {
            "pattern": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            "num_vocab_tokens": VOCABULARY - CONTROL_TOKENS,
            "default_vocab_size": VOCABULARY,
            "default_num_special_tokens": CONTROL_TOKENS,
            "version": "v7",
        },
        "vocab": [
            {
                "rank": rank,
                "token_bytes": base64.b64encode(text).decode(),
                "token_str": text.decode() if text.isascii() else None,
            }
            for rank, text in enumerate((*(bytes([byte]) for byte in range(256)), *(pair.encode() for pair in pairs())))
        ],
        "special_tokens": [{"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(control_tokens())],
    }
