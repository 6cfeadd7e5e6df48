"""Every command in README.md and docs/ does what its page says."""

import subprocess
from pathlib import Path

import pytest
import yaml

import ckptfs
import doc_pages
import playground
from doc_pages import REPOSITORY, Command

SKILL = REPOSITORY / "docs/skill/SKILL.md"
PAGES = sorted([REPOSITORY / "README.md", SKILL, *(REPOSITORY / "docs").glob("*.md")])
# What is left behind by a command that stands alone.
CLEAN_UP = "for at in /mnt/*; do ! mountpoint -q $at || ckptfs unmount $at; done; rm -rf DIR report.html"


@pytest.fixture(scope="module")
def models(checkpoints, tmp_path_factory) -> Path:
    # On the file system of the real checkpoints, which are linked.
    return playground.build(tmp_path_factory.mktemp("docs") / "models", checkpoints)


@pytest.fixture
def run(models, tmp_path):
    environment = playground.commands(tmp_path / "bin")

    def run(commands: list[Command], between: str = "") -> list[str]:
        return doc_pages.run(commands, models, environment, tmp_path / "scratch", between)

    return run


SESSIONS = {page.stem: doc_pages.in_console_blocks(page.read_text()) for page in PAGES}


@pytest.mark.parametrize("page", [page for page, commands in SESSIONS.items() if commands])
def test_a_session_goes_as_its_page_shows(page, run):
    run(SESSIONS[page])


def test_the_commands_in_the_tables_of_the_readme_succeed_and_have_an_effect(run):
    commands = doc_pages.in_tables((REPOSITORY / "README.md").read_text())
    assert len(commands) > 20
    commands = [Command(0, "mkdir -p /mnt/m"), *map(ended, commands)]
    outputs = zip(commands, run(commands, CLEAN_UP), strict=True)
    idle = [f"{command.text}\n{output}" for command, output in outputs if "[no-effect]" in output]
    assert not idle, "\n".join(idle)


def ended(command: Command) -> Command:
    """The same of a server: it is ended, which is no failure of it, once it says where it listens."""
    if not command.text.startswith("ckptfs serve "):
        return command
    return Command(command.line, f"{command.text} >served & "
                   "until [ -s served ] || ! kill -0 $!; do sleep 0.01; done; kill $!; wait $! && cat served")


def test_the_jobs_of_the_skill_succeed_and_it_is_short(run):
    text = SKILL.read_text()
    commands = doc_pages.in_tables(text)
    assert len(commands) > 5
    run(commands)
    front = yaml.safe_load(text.removeprefix("---\n").split("\n---\n")[0])
    assert set(front) == {"name", "description"}
    assert len(text.splitlines()) < 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_cannot_be_run_here_is_well_formed(page):
    for block in doc_pages.blocks(page.read_text(), "bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    # Recipes are planned by other tests.
    for block in doc_pages.blocks(page.read_text(), "yaml"):
        documents = list(yaml.safe_load_all(block))
        assert documents and all(isinstance(document, dict) for document in documents)


def test_the_commands_of_the_example_for_kubernetes_have_flags_of_this_version():
    pod = yaml.safe_load((REPOSITORY / "docs/kubernetes/vllm.yaml").read_text())
    (view,) = pod["spec"]["initContainers"]
    commands = [
        view["args"][0].splitlines()[-1].removeprefix("exec ").split(),
        view["startupProbe"]["exec"]["command"],
        view["lifecycle"]["preStop"]["exec"]["command"],
    ]
    for program, command, *arguments in commands:
        assert program == "ckptfs"
        words = ckptfs.run("help", command).stdout.split()
        flags = [argument for argument in arguments if argument.startswith("--")]
        assert set(flags) <= set(words), command
    assert {command for _, command, *_ in commands} == {"mount", "status", "unmount"}


def test_a_page_that_shows_something_else_is_noticed(run):
    with pytest.raises(AssertionError, match="the page shows"):
        run([Command(1, "echo one", ["two"])])
    shown = ["first …", "…", "last"]
    assert doc_pages.shown_is(shown, "first line\nand\nmore\nlast\n")
    assert not doc_pages.shown_is(shown, "first line\nand\nmore\n")
