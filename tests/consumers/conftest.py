"""What every consumer test builds on: the checkpoints and mounts of their views."""

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
# Threads that spin while they wait make a busy machine several times slower.
os.environ["OMP_WAIT_POLICY"] = "passive"

import torch  # noqa: E402  (after the environment that the readers look at)

import ckptfs  # noqa: E402
import planted  # noqa: E402

torch.set_num_threads(2)
REPOSITORY = Path(__file__).resolve().parents[2]
# Begun first where files run side by side, as the last would run alone. Of those that start vLLM,
# which takes much memory, the second follows the first.
LONGEST = ["test_docs", "test_gguf", "test_mergekit_models", "test_vllm", "test_transformers", "test_lora",
           "test_fp8_rules"]


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_terminal_summary(terminalreporter):
    """The seconds of each file, by which they are put in order."""
    seconds = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[Path(report.nodeid.split("::")[0]).stem] += report.duration
    terminalreporter.section("seconds of each file")
    for name, spent in seconds.most_common():
        terminalreporter.write_line(f"{spent:7.1f}  {name}")


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The directory of real checkpoints; built by the first test run that needs it."""
    script = REPOSITORY / "scripts" / "real-checkpoints"
    done = subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def planted_checkpoint(tmp_path_factory) -> Path:
    """A small checkpoint of values and shapes where quantisers go wrong."""
    return planted.save(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def mount(checkpoints, tmp_path):
    """`with mount(view) as path:` mounts a view of the real checkpoints."""
    return lambda view: ckptfs.mounted(view(checkpoints), tmp_path)


@pytest.fixture
def mount_planted(planted_checkpoint, tmp_path):
    """`with mount_planted(*flags) as path:` mounts an FP8 view of the planted checkpoint."""
    return lambda *flags: ckptfs.mounted(
        ["--base", planted_checkpoint, "--fp8", *flags], tmp_path
    )


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    """A directory with the models that recipes name."""
    from mergekit_runs import save_zoo  # mergekit takes a while to import

    return save_zoo(tmp_path_factory.mktemp("zoo"))
