"""Recipes of every structure that mergekit's examples and tests have, with models, names and values of our own."""

from typing import NamedTuple


class Case(NamedTuple):
    family: str
    recipe: dict


def merge(method: str, models: dict, base: str | None = None, **more) -> dict:
    """`models`: the parameters of each; `more`: further keys of the recipe."""
    stated = {
        "merge_method": method,
        "models": [{"model": f"ZOO/{name}", "parameters": own} for name, own in models.items()],
    }
    if base:
        stated["base_model"] = f"ZOO/{base}"
    return stated | more


def two(method: str, base: str | None = None, models="ab", weights=(0.6, 0.4), **parameters) -> dict:
    """A merge of two models that have weights, which some methods do not take, in bfloat16."""
    weighted = {name: {"weight": weight} for name, weight in zip(models, weights)}
    return merge(method, weighted, base, dtype="bfloat16", parameters=parameters)


def stack(*runs, **more) -> dict:
    """Runs of layers, `(model, first layer, layer after the last)`, one after the other."""
    slices = [{"sources": [{"model": f"ZOO/{model}", "layer_range": [first, end]}]}
              for model, first, end in runs]
    return {"merge_method": "passthrough", "slices": slices} | more


BY_DEPTH = {"t": [
    {"filter": "self_attn", "value": [0, 0.6, 0.2, 0.8, 1]},
    {"filter": "mlp", "value": [1, 0.4, 0.8, 0.2, 0]},
    {"value": 0.45},
]}
GRADIENTS = {
    "a": {"weight": 1.0, "density": [1, 0.6, 0.2]},
    "b": {"weight": [0, 0.4, 0.6, 1], "density": 0.5},
    "d": {"weight": [{"filter": "mlp", "value": 0.4}, {"value": 0}], "density": 0.3},
}
HALVES = dict.fromkeys("ab", {"weight": 0.5, "density": 0.5})
NO_ATTENTION = {"scale": [{"filter": "o_proj", "value": 0}, {"value": 1}]}
COPY = merge("passthrough", {"a": {}}, dtype="bfloat16")

SAME_BITS = {
    "linear, three models, no base": Case("middling", merge(
        "linear", {"a": {"weight": 1.0}, "b": {"weight": 0.2}, "c": {"weight": 0.6}}, dtype="float16")),
    "ties, gradients and filters": Case("middling", merge(
        "ties", GRADIENTS, "c", parameters={"normalize": True, "int8_mask": True}, dtype="float16")),
    "ties, not normalized": Case("middling", merge(
        "ties", HALVES, "c", parameters={"normalize": False, "int8_mask": True}, dtype="float16")),
    "44 layers of two models of 40": Case("deep", stack(("a", 0, 24), ("b", 20, 40), dtype="float16")),
    "a copy of Granite": Case("granite", COPY),
    "a copy of GPT-2": Case("gpt2", COPY),
    "GPT-2 twice": Case("gpt2", stack(("a", 0, 12), ("a", 0, 12), dtype="bfloat16")),
    "no attention, no dtype": Case("small", merge("passthrough", {"a": NO_ATTENTION})),
    "linear, Granite": Case("granite", two("linear")),
}
# Of families with layers under one prefix and under two.
EXACT = {
    "linear": two("linear"),
    "task_arithmetic": two("task_arithmetic", "c"),
    "breadcrumbs": two("breadcrumbs", "c"),
    "ties": two("ties", "c", density=0.3),
    "ram": two("ram", "c"),
    "ramplus_tl": two("ramplus_tl", "c", r=0.05, alpha=1.0),
    "nearswap": two("nearswap", "a", t=0.0001),
    "sce": two("sce", "c", select_topk=0.5),
}
SAME_BITS |= {f"{name}, {family}": Case(family, recipe)
              for family in ("small", "vision") for name, recipe in EXACT.items()}

NUSLERP = {
    f"nuslerp of {'differences' if base else 'weights'}, {of}": two("nuslerp", base, **flags)
    for base in (None, "c")
    for of, flags in {
        "rows": {"nuslerp_row_wise": False, "nuslerp_flatten": False},
        "columns": {"nuslerp_row_wise": True, "nuslerp_flatten": False},
        "tensors": {"nuslerp_row_wise": False, "nuslerp_flatten": True},
        "tensors in spite of nuslerp_row_wise": {"nuslerp_row_wise": True, "nuslerp_flatten": True},
    }.items()
}
NUSLERP["nuslerp, weights that add up to 0"] = two(
    "nuslerp", "c", weights=(-0.5, 0.5), nuslerp_row_wise=False, nuslerp_flatten=False)
# Near in bfloat16, too.
SUMS = NUSLERP | {
    "slerp": two("slerp", "a", t=0.35),
    "model_stock": two("model_stock", "a", models="bc"),
    "model_stock by row": two("model_stock", "a", models="bc", filter_wise=True),
}
# Only near in float32: mergekit rounds after each step.
DIRECTIONS = {
    "karcher": two("karcher", "c", max_iter=5, tol=1e-5),
    "multislerp": two("multislerp", "c"),
}


def in_float32(recipe: dict) -> dict:
    return recipe | {"dtype": "float32"}


NEAR = {
    "slerp by depth, slices of 40 layers": Case("deep", {
        "merge_method": "slerp",
        "slices": [{"sources": [{"model": f"ZOO/{model}", "layer_range": [0, 40]} for model in "ab"]}],
        "base_model": "ZOO/a",
        "parameters": BY_DEPTH,
        "dtype": "float16",
    }),
    "slerp by depth, models": Case("middling", merge(
        "slerp", {"a": {}, "b": {}}, "a", parameters=BY_DEPTH, dtype="float16")),
    "slerp, Granite": Case("granite", two("slerp", "a", t=0.5)),
    **{f"{name}, bfloat16": Case("small", recipe) for name, recipe in SUMS.items()},
    **{f"{name}, float32": Case("small", in_float32(recipe))
       for name, recipe in (SUMS | DIRECTIONS | {"sce": EXACT["sce"]}).items()},
    # Rows of a convolution are short: where a row of one model is nearly opposite to that of another, f32 loses more.
    **{f"{name}, vision": Case("vision", in_float32(recipe) | {"out_dtype": "bfloat16"})
       for name, recipe in SUMS.items()},
    **{f"{name}, vision": Case("vision", in_float32(recipe)) for name, recipe in DIRECTIONS.items()},
}
# What mergekit leaves in float32, whatever `dtype` says.
LEFT_IN_FLOAT32 = {"ramplus_tl"}

FUSED = merge("arcee_fusion", {"a": {}, "b": {}}, "a", dtype="bfloat16")

# The base of one is another, and that of the last is neither.
DOCUMENTS = """
name: mean
merge_method: linear
models:
  - model: ZOO/a
  - model: ZOO/b
parameters: {weight: 0.5}
---
name: arc
merge_method: slerp
base_model: mean
models:
  - model: ZOO/d
parameters: {t: [0, 0.4, 1]}
---
merge_method: task_arithmetic
base_model: ZOO/c
models:
  - model: arc
    parameters: {weight: 0.5}
  - model: ZOO/b
    parameters: {weight: [0.7, 0.2]}
"""


def spoken(models: list[str], method: str = "linear", **more) -> dict:
    base = models[0]
    return merge(method, dict.fromkeys(models, {"weight": 1.0}), base, dtype="float32") | more


ALL = ["plain", "spare", "chat"]
PAIR = ["plain", "chat"]
FORCED = {
    "w10": {"source": "ZOO/chat", "force": True},
    "w11": {"source": "ZOO/plain", "force": True},
}
RENAMED = {
    "w20": {"source": {"kind": "model_token", "model": "ZOO/chat", "token_id": 64}, "force": True},
    "w21": {"source": {"kind": "model_token", "model": "ZOO/plain", "token": "<s>"}, "force": True},
}
# Recipes, and how many tokens and rows they come to.
TOKENS = {
    "base": (spoken(ALL, tokenizer_source="base"), 64, 64),
    "union": (spoken(ALL, tokenizer_source="union"), 66, 66),
    "that of a model": (spoken(ALL, tokenizer_source="ZOO/chat"), 66, 66),
    "union, slerp": (spoken(PAIR, "slerp", tokenizer_source="union", parameters={"t": 0.5}), 66, 66),
    "rows forced on all": (spoken(PAIR, tokenizer={"source": "union", "tokens": FORCED}), 66, 66),
    "rows of other tokens": (spoken(PAIR, tokenizer={"source": "base", "tokens": RENAMED}), 64, 64),
    "rows up to a multiple": (
        spoken(["chat"], tokenizer={"source": "base", "pad_to_multiple_of": 16}), 66, 80),
}

PLAIN = {"source_model": "ZOO/plain"}
MIXTURES = {
    "eight experts of one model": {"experts": [PLAIN] * 8, "dtype": "bfloat16"},
    "an architecture by name, a shared expert": {
        "experts": [PLAIN, {"source_model": "ZOO/spare", "residual_scale": 0.5}],
        "shared_experts": [{"source_model": "ZOO/spare", "residual_scale": 0.1}],
        "architecture": "qwen",
        "dtype": "float16",
    },
}
