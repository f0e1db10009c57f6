"""The generated checkpoints' two tokenizer files: as mistral_common and transformers want them, and of one mind."""

from __future__ import annotations

import base64

from embedded.hub import tokenizer
from embedded.hub.checkpoints import CONTROL_TOKENS, VOCABULARY


def test_there_is_a_token_for_every_id_of_the_model() -> None:
    assert set(tokenizer.tokenizer_json()["model"]["vocab"].values()) == set(range(VOCABULARY))
    # mistral_common: vocab_size <= len(vocab) + num_special_tokens
    document = tokenizer.tekken()
    assert document["config"]["default_vocab_size"] == len(document["vocab"]) + document["config"]["default_num_special_tokens"]


def test_both_files_give_the_same_id_to_the_same_text() -> None:
    symbols = tokenizer._byte_symbols()
    vocabulary = tokenizer.tokenizer_json()["model"]["vocab"]
    for entry in tokenizer.tekken()["vocab"]:
        text = "".join(symbols[byte] for byte in base64.b64decode(entry["token_bytes"]))
        assert vocabulary[text] == entry["rank"] + CONTROL_TOKENS


def test_every_longer_token_can_be_merged_from_bytes() -> None:
    model = tokenizer.tokenizer_json()["model"]
    assert {"".join(merge) for merge in model["merges"]} == set(list(model["vocab"])[CONTROL_TOKENS + 256 :])
