"""How GPTQ packs codes: a stream of bits down the words of a column, the lowest bit first."""

import torch


def packed_down(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """`[n, columns]` codes of `bits` bits as `[n · bits / 32, columns]` words."""
    positions = torch.arange(bits)
    stream = (codes[:, None, :] >> positions[None, :, None] & 1).flatten(0, 1)
    places = torch.arange(32, dtype=torch.int64)
    words = (stream.unflatten(0, (-1, 32)).long() << places[None, :, None]).sum(1)
    return (words - (words >= 2**31).long() * 2**32).to(torch.int32)
