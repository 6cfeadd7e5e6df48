"""How far tensors that were computed in two ways are from each other."""

import torch

# What a merge may differ by: the order in which products are summed in f32. Where the terms of a
# sum nearly cancel, that is much of the little that remains, in any two orders: the most is
# therefore counted in units of the largest of the terms and the result.
MOST_UNITS = 2
# The terms that we see are not all: the products of a LoRA may be much larger than the weight and
# its change at an element where they cancel. What f32 loses there is in proportion to the tensor:
# 64 roundings of 2**-24. It is less than a tenth of a unit of all but the smallest weights.
LOST_IN_F32 = 2**-18
LEAST_WITHIN_ONE_ULP = 0.999
# A sum over a whole tensor that is rounded to its neighbor moves all elements of the tensor. The order of
# such sums, and with it which tensors are moved, depends on the processor. A wrong formula moves all.
MAY_BE_MOVED = 0.05


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
        self.elements = self.equal = self.most_ulps = 0
        self.beyond_one = []  # elements more than one ULP off, and all, of each tensor
        self.most_units = 0.0

    def add(self, wanted, found, *terms) -> None:
        """`terms` are what was added up; an element of theirs may be much larger than the sum's."""
        ulps = (in_order(found) - in_order(wanted)).abs()
        self.elements += ulps.numel()
        self.equal += (ulps == 0).sum().item()
        self.beyond_one.append(((ulps > 1).sum().item(), ulps.numel()))
        if (apart := ulps > 0).any():
            self.most_ulps = max(self.most_ulps, ulps.max().item())
            lost = LOST_IN_F32 * max(tensor.abs().max().item() for tensor in (wanted, *terms))
            wanted, found, *terms = [tensor[apart] for tensor in (wanted, found, *terms)]
            distance = (found.double() - wanted.double()).abs()
            distance = (distance - lost).clamp(min=0) / units(wanted.dtype, wanted, *terms)
            self.most_units = max(self.most_units, distance.max().item())

    def check(self, label: str, may_be_moved: float = 0) -> None:
        """Fails if too much is too far off, the share of tensors that may be moved aside."""
        tensors = len(self.beyond_one)
        assert tensors, "no tensor was compared: this shows nothing"
        by_share = sorted(self.beyond_one, key=lambda counts: counts[0] / max(counts[1], 1))
        counted = by_share[: tensors - int(may_be_moved * tensors)]
        within_one = 1 - sum(beyond for beyond, _ in counted) / sum(count for _, count in counted)
        print(f"\n{label}: {tensors} tensors, {self.elements} elements: "
              f"{self.equal / self.elements:.4%} equal, {within_one:.5%} within one ULP, "
              f"at most {self.most_units:.3g} units ({self.most_ulps} ULPs)")
        assert within_one >= LEAST_WITHIN_ONE_ULP
        assert self.most_units <= MOST_UNITS
