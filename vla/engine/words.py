"""What a language model makes of an instruction, kept from picture to picture.

That is possible where words stand first and see words only (`language.words_first`): then their keys and values depend
on nothing that a camera shows. Once an episode the words are read; each picture is run behind what is kept of them.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

KEPT = 64
"""Instructions remembered."""


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """Of L words: hidden states (B, L, width), and of each layer keys and values (B, K, L, d)."""

    hidden: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]


class KeptWords:
    """Of instructions by their ids. For one set of weights: whoever changes them makes another."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, ...], Read] = OrderedDict()

    def of(self, ids: Tensor, lengths: Sequence[int], read: Callable[[int, int], Read]) -> Read:
        """Of ids (B, L), whose rows hold `lengths` words and then padding, for which zeros stand.

        read: is given a row and how many words it has, and reads them; asked only what is not kept.
        """
        rows = []
        for row, length in enumerate(lengths):
            key = tuple(ids[row, :length].tolist())
            if key not in self._kept:
                self._kept[key] = read(row, length)
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            rows.append(_padded(self._kept[key], ids.shape[1]))
        layers = zip(*(each.layers for each in rows), strict=True)
        return Read(
            hidden=torch.cat([each.hidden for each in rows]),
            layers=tuple((torch.cat([k for k, _ in row]), torch.cat([v for _, v in row])) for row in layers),
        )


def _padded(read: Read, length: int) -> Read:
    more = length - read.hidden.shape[1]
    hidden = F.pad(read.hidden, (0, 0, 0, more))
    layers = ((F.pad(k, (0, 0, 0, more)), F.pad(v, (0, 0, 0, more))) for k, v in read.layers)
    return Read(hidden, tuple(layers))
