"""lerobot's π0-FAST without code from elsewhere: it would run the FAST tokenizer's from the hub (`trust_remote_code`).

That code writes a chunk's cosine coefficients as characters and pairs them by a `tokenizers` file; to read an answer
lerobot needs of it the file, the scale and the smallest coefficient, and does the rest itself. Those stand in the two
files that `FastTokenizer` reads, here in the folder `fast/` of the checkpoint. So while lerobot builds the model, what
it asks for is what was read from there.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from reflexarc.configs.errors import PolicyError
from reflexarc.vla.tokenizers import FastTokenizer
from reflexarc.vla.tokenizers.fast import TOKENIZER

KIND = "pi0_fast"
FAST = "fast"
TEXT = ("tokenizer.json", "tokenizer_config.json")


class LocalTokenizers:
    """Of a checkpoint's folder: `fast/` and PaliGemma's. Raises PolicyError naming what is missing or wrong."""

    def __init__(self, folder: Path) -> None:
        for name in TEXT:
            if not (folder / name).is_file():
                raise PolicyError(
                    f"{folder} has no {name}; put the two files of its text tokenizer there: {' and '.join(TEXT)}"
                )
        if not (folder / FAST).is_dir():
            raise PolicyError(
                f"{folder} has no folder {FAST}/; put processor_config.json and tokenizer.json of the FAST tokenizer "
                "there that the model was trained with (`action_tokenizer_name`); its code is not run"
            )
        read = FastTokenizer.load(folder / FAST)
        pairs = PreTrainedTokenizerFast(tokenizer_file=str(folder / FAST / TOKENIZER))
        self.actions = types.SimpleNamespace(bpe_tokenizer=pairs, scale=read.scale, min_token=read.min_token)
        try:
            self.text: Any = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, add_eos_token=True, add_bos_token=False
            )
        except Exception as error:  # the library raises a dozen unrelated types
            raise PolicyError(f"{folder / TEXT[0]}: not a tokenizer: {error}") from error
        self._folder = folder

    @contextlib.contextmanager
    def given(self) -> Iterator[None]:
        """lerobot's model, while it is built, gets these and nothing else."""
        from lerobot.policies.pi0_fast import modeling_pi0_fast as model

        before = model.AutoProcessor, model.AutoTokenizer
        model.AutoProcessor, model.AutoTokenizer = _always(self.actions), _always(self.text)
        try:
            yield
        finally:
            model.AutoProcessor, model.AutoTokenizer = before

    def overrides(self) -> dict[str, dict[str, Any]]:
        """Of the preprocessor's steps: the same tokenizers, and nobody's code."""
        return {
            "tokenizer_processor": {"tokenizer_name": str(self._folder)},
            "action_tokenizer_processor": {
                "action_tokenizer_input_object": self.actions,
                "trust_remote_code": False,
                "paligemma_tokenizer_name": str(self._folder),
            },
        }


def _always(answer: Any) -> Any:
    """Something whose `from_pretrained` returns this, whatever it is asked for."""
    return types.SimpleNamespace(from_pretrained=lambda *_, **__: answer)
