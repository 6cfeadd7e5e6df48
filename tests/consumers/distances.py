"""How far tensors that were computed in two ways are from each other."""

import torch

# What a merge may differ by: the order in which products are summed in f32. Where the terms of a
# sum nearly cancel, that is much of the little that remains, in any two orders: the most is
# therefore counted in units of the largest of the terms and the result.
MOST_UNITS = 2
LEAST_WITHIN_ONE_ULP = 0.999


def in_order(tensor: torch.Tensor) -> torch.Tensor:
    """Integers that are one apart where the numbers of a 16-bit type are neighbors."""
    bits = tensor.contiguous().view(torch.int16).to(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def units(dtype: torch.dtype, *weights: torch.Tensor) -> torch.Tensor:
    """What the last place of `dtype` is worth in the largest of each element."""
    info = torch.finfo(dtype)
    largest = torch.stack([weight.double().abs() for weight in weights]).amax(0)
    exponent = torch.frexp(largest.clamp(min=info.tiny)).exponent - 1
    return info.eps * torch.exp2(exponent.double())


class Distances:
    """How far tensors of a 16-bit type are from those that were wanted."""

    def __init__(self):
        self.ulps, self.units = [], []

    def add(self, wanted, found, *terms) -> None:
        """`terms` are what was added up; an element of theirs may be much larger than the sum's."""
        self.ulps.append((in_order(found) - in_order(wanted)).abs().flatten())
        distance = (found.double() - wanted.double()).abs()
        self.units.append((distance / units(wanted.dtype, wanted, *terms)).flatten())

    def check(self, label: str) -> None:
        assert self.ulps, "no tensor was compared: this shows nothing"
        ulps, most = torch.cat(self.ulps), torch.cat(self.units).max().item()
        equal, within_one = [(ulps <= limit).double().mean().item() for limit in (0, 1)]
        print(f"\n{label}: {len(self.ulps)} tensors, {ulps.numel()} elements: {equal:.4%} equal, "
              f"{within_one:.5%} within one ULP, at most {most:.3g} units ({ulps.max()} ULPs)")
        assert within_one >= LEAST_WITHIN_ONE_ULP
        assert most <= MOST_UNITS
