"""The report in a real browser: what it shows is what the plan says, and it loads nothing."""

import json
import re
import struct
import subprocess
from pathlib import Path

import browser
import ckptfs
import pytest

HOSTILE = (
    "model.layers.1.</script><script>window.hacked=1</script>"
    "<img src=http://localhost/x onerror=window.hacked=1>.weight"
)


def write(directory: Path, shards: dict[str, dict[str, list[int]]]) -> Path:
    """Writes BF16 tensors of these shapes, all zeros, as sparse files."""
    directory.mkdir()
    weight_map = {}
    for shard, tensors in shards.items():
        header, end = {}, 0
        for name, shape in tensors.items():
            begin, end = end, end + 2 * shape[0] * shape[-1] ** (len(shape) - 1)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
            weight_map[name] = shard
        text = json.dumps(header).encode()
        with (directory / shard).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text('{"model_type": "test"}')
    return directory


def small(directory: Path) -> list:
    def layer(i: int) -> dict:
        names = ["self_attn.q_proj.weight", "mlp.up_proj.weight"]
        norm = {f"model.layers.{i}.norm.weight": [256]}
        return {f"model.layers.{i}.{name}": [256, 128] for name in names} | norm

    base = write(directory / "base", {
        "model-00001-of-00002.safetensors": layer(0) | layer(1) | {HOSTILE: [7]},
        "model-00002-of-00002.safetensors": layer(2) | {"lm_head.weight": [64, 128]},
    })  # fmt: skip
    extra = write(directory / "extra", {"model.safetensors": {"mtp.proj.weight": [64, 128]}})
    return ["--base", base, "--extra", extra, "--fp8"]


def large(directory: Path) -> list:
    """100,000 tensors in 100 shards."""
    name = "model.layers.{}.mlp.experts.{}.w{}.weight"
    names = iter(name.format(i // 1600, i // 25 % 64, i % 25) for i in range(100_000))
    shards = {
        f"model-{number:05}-of-00100.safetensors": {next(names): [256, 128] for _ in range(1000)}
        for number in range(1, 101)
    }
    return ["--base", write(directory / "base", shards)]


def report(view: list, directory: Path, *flags) -> Path:
    out = directory / "report.html"
    ckptfs.run("report", *view, "--out", out, *flags)
    return out


def search(page: browser.Page, **fields) -> tuple[int, list[str]]:
    """How many tensors a search finds, and the names on the first page."""
    for field, value in fields.items():
        page.value(f"document.getElementById({json.dumps(field)}).value = {json.dumps(value)}")
    page.value("document.getElementById('search').requestSubmit()")
    found = page.value("document.getElementById('found').textContent")
    return int(found.split(" of ")[0].replace(",", "")), page.value(NAMES)


NAMES = "[...document.querySelectorAll('#tensors td.name button')].map(b => b.textContent)"
TEXT = "document.body.innerText"


def assert_is_quiet(page: browser.Page, file: Path) -> None:
    """Nothing was logged, nothing failed, and nothing but the file was asked for."""
    assert not page.told("Runtime.exceptionThrown")
    assert not page.told("Runtime.consoleAPICalled")
    assert not page.told("Log.entryAdded")
    asked = [event["request"]["url"] for event in page.told("Network.requestWillBeSent")]
    assert asked == [file.as_uri()]


@pytest.fixture(scope="module")
def large_report(tmp_path_factory) -> tuple[list, Path]:
    """The flags of a view of 100,000 tensors, and its report."""
    directory = tmp_path_factory.mktemp("large")
    flags = large(directory)
    return flags, report(flags, directory)


@pytest.fixture
def small_report(tmp_path) -> tuple[list, Path]:
    flags = small(tmp_path)
    return flags, report(flags, tmp_path)


@pytest.mark.parametrize("reported", ["small_report", "large_report"])
def test_the_report_agrees_with_the_plan(reported, request):
    flags, file = request.getfixturevalue(reported)
    plan = json.loads(ckptfs.run("plan", *flags, "--json").stdout)
    names = {tensor["name"] for shard in plan["shards"] for tensor in shard["tensors"]}
    with browser.page() as page:
        page.open(file)
        assert search(page, q="")[0] == plan["tensors"] == len(names)
        for query, expected in {
            "layers.1.": {name for name in names if "layers.1." in name},
            "LAYERS.2. up_proj": {n for n in names if "layers.2." in n and "up_proj" in n},
            "/^model.*\\.0\\.norm/": {"model.layers.0.norm.weight"} & names,
            "no such tensor": set(),
        }.items():
            count, shown = search(page, q=query)
            assert count == len(expected), query
            assert len(shown) == min(count, 100) and set(shown) <= expected
        shard = plan["shards"][-1]
        count, shown = search(page, q="", shard=str(len(plan["shards"]) - 1))
        assert count == len(shard["tensors"])
        search(page, shard="")
        options = page.value("[...document.getElementById('fate').options].map(o => o.text)")
        options = [option.replace(",", "").strip(")").split(" (") for option in options[1:]]
        counts = {fate: int(count) for fate, count in options}
        fates = ["kept", "added", "grafted", "changed", "scales"]
        assert counts == {fate: plan["counts"][fate]["tensors"] for fate in fates}
        assert sum(counts.values()) == plan["tensors"]
        assert counts["changed"] == counts["scales"] == plan["quantized"]
        kinds = page.value("document.querySelectorAll('#kinds tbody tr').length")
        assert kinds == len(plan["groups"])
        assert_is_quiet(page, file)


def test_names_are_shown_and_never_run(small_report):
    _, file = small_report
    with browser.page() as page:
        page.open(file)
        assert search(page, q="hacked") == (1, [HOSTILE])
        page.value("document.querySelector('#tensors tr.row').click()")
        assert HOSTILE in page.value("document.querySelector('.detail').textContent")
        assert page.value("typeof window.hacked") == "undefined"
        assert page.value("document.scripts.length") == 2
        assert page.value("document.images.length") == 0
        assert_is_quiet(page, file)


def test_the_table_sorts_turns_pages_and_tells_where_a_tensor_comes_from(tmp_path):
    flags = small(tmp_path)
    plan = json.loads(ckptfs.run("plan", *flags, "--json", "--provenance").stdout)
    tensors = {t["name"]: t for shard in plan["shards"] for t in shard["tensors"]}
    file = report(flags, tmp_path, "--errors")
    with browser.page() as page:
        page.open(file)
        heads = page.value("[...document.querySelectorAll('#tensors th')].map(h => h.textContent)")
        sort = f"document.querySelectorAll('#tensors th button')[{heads.index('bytes')}].click()"
        for sign in [1, -1]:
            page.value(sort)
            lengths = [sign * tensors[name]["len"] for name in page.value(NAMES)]
            assert lengths == sorted(lengths) and len(lengths) == len(tensors)
        name = "model.layers.1.mlp.up_proj.weight"
        assert search(page, q=f"/^{name}$/") == (1, [name])
        page.value("document.querySelector('#tensors tr.row').click()")
        detail = page.value("document.querySelector('.detail').innerText")
        (source,) = tensors[name]["provenance"]["from"]
        begin, end = (f"{byte:,}" for byte in source["bytes"])
        path = f"{source['checkpoint']}/{source['file']}"
        for part in [path, f"{begin} to {end}", "fp8", "SQNR exact"]:
            assert part in detail, part
        assert page.value("document.getElementById('errors').innerText").count("up_proj") == 1
        assert_is_quiet(page, file)


def test_the_difference_is_that_of_the_command(tmp_path):
    flags = small(tmp_path)
    base = tmp_path / "base"
    extra = tmp_path / "extra"
    recipe = tmp_path / "view.yml"
    recipe.write_text(f"base: {base}\nview: {{patch: {extra}, fp8: true}}\n")
    command = [ckptfs.binary(), "diff", base, recipe, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    rows = json.loads(done.stdout)["rows"]
    file = report(flags, tmp_path, "--diff", base)
    with browser.page() as page:
        page.open(file)
        cells = "[...document.querySelector('#diff table').tBodies[0].rows]"
        texts = "row => [...row.cells].slice(0, 3).map(cell => cell.textContent)"
        shown = page.value(f"{cells}.map({texts})")
        assert shown == [[row["what"], row["name"], str(row["tensors"])] for row in rows]
        diff = page.value("document.getElementById('diff').innerText")
        assert diff.count("quantization_config") == 1
        assert_is_quiet(page, file)


def test_pages_of_100_000_tensors_are_of_one_hundred(large_report):
    _, file = large_report
    with browser.page() as page:
        page.open(file)
        first = page.value(NAMES)
        page.value("document.getElementById('next').click()")
        second = page.value(NAMES)
        page.value("document.getElementById('last').click()")
        assert len(first) == len(second) == 100 and not set(first) & set(second)
        assert page.value("document.getElementById('page').textContent") == "page 1,000 of 1,000"
        assert page.value("document.querySelectorAll('*').length") < 5000
        assert_is_quiet(page, file)


def test_colors_follow_the_scheme_that_the_reader_prefers(small_report):
    _, file = small_report
    with browser.page() as page:
        page.open(file)
        paper = "getComputedStyle(document.body).backgroundColor"
        pixel = "getContext('2d').getImageData(40, 2, 1, 1).data"
        pictured = f"String([...document.getElementById('map').{pixel}])"
        page.dark(False)
        light = page.value(paper), page.value(pictured)
        page.dark(True)
        page.until(f"{pictured} !== {json.dumps(light[1])}")
        red = [int(re.search(r"\d+", color)[0]) for color in (light[0], page.value(paper))]
        assert red[0] > 200 > 60 > red[1]
