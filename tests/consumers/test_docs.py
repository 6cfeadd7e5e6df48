"""Every command in README.md and docs/ does what its page says."""

from pathlib import Path

import pytest

import doc_pages
import playground
from doc_pages import REPOSITORY, Command

PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")])
# What is left behind by a command that stands alone.
CLEAN_UP = "for at in /mnt/*; do ! mountpoint -q $at || ckptfs unmount $at; done; rm -rf DIR report.html"


@pytest.fixture(scope="module")
def models(checkpoints, tmp_path_factory) -> Path:
    # On the file system of the real checkpoints, which are linked.
    return playground.build(tmp_path_factory.mktemp("docs") / "models", checkpoints)


@pytest.fixture
def run(models, tmp_path):
    environment = playground.commands(tmp_path / "bin")

    def run(commands: list[Command], between: str = "") -> None:
        doc_pages.run(commands, models, environment, tmp_path / "scratch", between)

    return run


def identify(page: Path) -> str:
    return page.stem


def with_commands(find) -> list:
    found = [(page, find(page.read_text())) for page in PAGES]
    return [pytest.param(commands, id=page.stem) for page, commands in found if commands]


@pytest.mark.parametrize("commands", with_commands(doc_pages.in_console_blocks))
def test_a_session_goes_as_its_page_shows(commands, run):
    run(commands)


@pytest.mark.parametrize("commands", with_commands(doc_pages.in_tables))
def test_a_command_in_a_table_succeeds(commands, run):
    run([Command(0, "mkdir -p /mnt/m /mnt/model"), *commands], CLEAN_UP)


def test_a_page_that_shows_something_else_is_noticed(run):
    with pytest.raises(AssertionError, match="the page shows"):
        run([Command(1, "echo one", ["two"])])
    shown = ["first …", "…", "last"]
    assert doc_pages.shown_is(shown, "first line\nand\nmore\nlast\n")
    assert not doc_pages.shown_is(shown, "first line\nand\nmore\n")
