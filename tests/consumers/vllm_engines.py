"""Generates with vLLM on the CPU, one engine per process.

Importing vLLM takes longer than running it on a small model. So one process
imports it, and forks for every engine: each begins with clean memory, and
returns all of it at its end.

Only the arithmetic of block FP8 may be replaced (`stand_in_kernel`); configs
are parsed and weights loaded by vLLM's own code.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

NEW_TOKENS = 24
SECONDS_TO_STOP = 30
SMALL = {
    "dtype": "bfloat16", "enforce_eager": True, "max_model_len": 64, "skip_tokenizer_init": True,
}
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "2",
}


class Engines:
    """`with Engines() as engines: engines.generate(directory, prompts)`"""

    def __enter__(self):
        self.scratch = tempfile.TemporaryDirectory(prefix="vllm-")
        self.log = Path(self.scratch.name) / "log"
        # What vLLM leaves in its caches, or forgets in /tmp, ends with the tests.
        places = dict.fromkeys(
            ("TMPDIR", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "XDG_CACHE_HOME"), self.scratch.name
        )
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__], env=os.environ | ENVIRONMENT | places,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True,
            )
        return self

    def generate(self, directory: Path, prompts: list[list[int]]) -> dict:
        """What a new engine makes of a checkpoint, or {"error": what it failed with}.

        tokens    the tokens generated after each prompt, greedily
        fp8       the layers whose weights are block FP8: names, and digests of what was loaded
        logprobs  the logarithms of the probabilities of these tokens
        """
        return self._ask("generate", directory, prompts)

    def load(self, directory: Path) -> dict:
        """What vLLM makes of the weights of a checkpoint before any kernel sees them, or an error.

        fp8       how many numbers are in parameters of block FP8
        missing   parameters that got no weight
        """
        return self._ask("load", directory)

    def load_draft(self, target: Path, draft: Path) -> dict:
        """What vLLM loads of `draft` as the MTP draft model of `target`, or an error.

        class     the class of the draft model
        weights   digests of its parameters, by name
        fp8       how many numbers are in parameters of block FP8
        missing   parameters that got no weight
        """
        return self._ask("load_draft", target, str(draft))

    def _ask(self, what: str, directory: Path, *more) -> dict:
        print(json.dumps([what, str(directory), *more]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"no vLLM:\n{self.log.read_text()}"
        return json.loads(answer)

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(SECONDS_TO_STOP)
        finally:
            # An engine that still runs goes too.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process.stdout.close()
            self.scratch.cleanup()


def serve() -> None:
    """Answers each line of standard input from a process of its own."""
    # vLLM logs to standard output, which belongs to the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import vllm  # noqa: F401  (once, for all that is forked)

    inspect_models_here()
    register_stand_in_kernel()
    keep_digests()
    for request in sys.stdin:
        what, *arguments = json.loads(request)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as pipe:
                json.dump(attempt(what, arguments), pipe)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        print(answer or json.dumps({"error": f"wait status {status}"}), file=answers, flush=True)


def inspect_models_here() -> None:
    """vLLM looks at the class of a model in a new process, lest it uses a GPU before it forks.

    There is none here, and that process would import all of vLLM again for each class.
    """
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda inspect: inspect()


def attempt(what: str, arguments: list) -> dict:
    try:
        return {"generate": generate, "load": load, "load_draft": load_draft}[what](*arguments)
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def generate(directory: str, prompts: list[list[int]]) -> dict:
    import vllm

    engine = vllm.LLM(
        directory, dtype="bfloat16", enforce_eager=True, max_model_len=256,
        skip_tokenizer_init=True,
    )
    [fp8] = engine.apply_model(fp8_layers)
    greedy = vllm.SamplingParams(
        temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, detokenize=False, logprobs=0
    )
    outputs = engine.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts], greedy, use_tqdm=False
    )
    return {
        "tokens": [list(output.outputs[0].token_ids) for output in outputs],
        "logprobs": [
            [step[token].logprob for token, step in zip(made.token_ids, made.logprobs, strict=True)]
            for made in (output.outputs[0] for output in outputs)
        ],
        "fp8": fp8,
    }


def load(directory: str) -> dict:
    from vllm.engine.arg_utils import EngineArgs

    config = EngineArgs(directory, **SMALL).create_engine_config()
    model, missing = loaded(config, config.model_config)
    return {"fp8": fp8_numbers(model), "missing": missing}


def load_draft(target: str, draft: str) -> dict:
    import torch
    from vllm.engine.arg_utils import EngineArgs

    speculative = {"method": "mtp", "model": draft, "num_speculative_tokens": 1}
    config = EngineArgs(target, speculative_config=speculative, **SMALL).create_engine_config()
    model, missing = loaded(config, config.speculative_config.draft_model_config)
    return {
        "class": type(model).__name__,
        "weights": {
            name: digest(parameter.data.reshape(-1).view(torch.uint8))
            for name, parameter in model.named_parameters() if name not in missing
        },
        "fp8": fp8_numbers(model),
        "missing": missing,
    }


def loaded(config, model_config) -> tuple:
    """The model of `model_config` with its weights, and the parameters that got none."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    with set_current_vllm_config(config), tempfile.NamedTemporaryFile() as rendezvous:
        init_distributed_environment(1, 0, f"file://{rendezvous.name}", 0, "gloo")
        ensure_model_parallel_initialized(1, 1)
        with set_default_torch_dtype(torch.bfloat16):
            model = initialize_model(vllm_config=config, model_config=model_config)
        weights = get_model_loader(config.load_config).get_all_weights(model_config, model)
        found = model.load_weights(weights)
    # Scales of the cache, which checkpoints seldom have.
    of_cache = (".k_scale", ".v_scale", ".q_scale", ".prob_scale")
    names = (name for name, _ in model.named_parameters())
    missing = (name for name in names if name not in found and not name.endswith(of_cache))
    return model, sorted(missing)


def fp8_numbers(model) -> int:
    import torch

    return sum(p.numel() for p in model.parameters() if p.dtype == torch.float8_e4m3fn)


def fp8_layers(model) -> dict[str, str]:
    from vllm.model_executor.layers.quantization.fp8 import Fp8LinearMethod

    return {
        name: layer.digest for name, layer in model.named_modules()
        if isinstance(getattr(layer, "quant_method", None), Fp8LinearMethod)
    }


def keep_digests() -> None:
    """Each layer keeps the digest of what was loaded: kernels give weights another form.

    As vLLM's kernels do, it takes the scale of a number from the block that its row and column are in.
    """
    from vllm.model_executor.layers.quantization.fp8 import Fp8LinearMethod

    from fp8_definition import dequantise

    process = Fp8LinearMethod.process_weights_after_loading

    def keep_digest(method, layer):
        layer.digest = digest(dequantise(layer.weight.data, layer.weight_scale_inv.data))
        process(method, layer)

    Fp8LinearMethod.process_weights_after_loading = keep_digest


def digest(numbers) -> str:
    return hashlib.sha256(numbers.numpy()).hexdigest()


def register_stand_in_kernel() -> None:
    """Puts a kernel that runs anywhere behind those that vLLM has for the CPU."""
    from vllm.model_executor.kernels import linear
    from vllm.platforms import PlatformEnum

    # Last: where the processor has AMX, one of vLLM's own comes first.
    linear._POSSIBLE_FP8_BLOCK_KERNELS[PlatformEnum.CPU].append(stand_in_kernel())


def stand_in_kernel() -> type:
    """A kernel that dequantises once, and multiplies as with any bf16 weight."""
    import torch
    from vllm.model_executor.kernels.linear import CPUFp8BlockScaledMMKernel

    from fp8_definition import dequantise

    class StandInKernel(CPUFp8BlockScaledMMKernel):
        @classmethod
        def is_supported(cls, compute_capability=None):
            return True, None

        def process_weights_after_loading(self, layer):
            assert layer.weight.dtype == torch.float8_e4m3fn
            weight = dequantise(layer.weight.data, layer.weight_scale_inv.data)
            layer.weight = torch.nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)

        def apply_weights(self, layer, x, bias=None, **_):
            return torch.nn.functional.linear(x, layer.weight, bias)

    return StandInKernel


if __name__ == "__main__":
    serve()
