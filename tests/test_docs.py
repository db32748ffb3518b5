"""Runs the code of README and guides as a reader would, section by section."""

import re
import shlex
from pathlib import Path

import pytest

from lumina.cli import main
from lumina.tasks import TASKS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
OF_STEPS = {"steps", "times", "solver", "schedule", "from", "vary", "preview", "guidance-interval"}
"""Flags of commands whose steps stay as they are."""

HUB_ID = "Alpha-VLLM/Lumina-Next-SFT-diffusers"
BLOCK = re.compile(r"^```(python|console)([ \w]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections():
    for page in PAGES:
        for section in re.split(r"^(?=## )", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            blocks = BLOCK.findall(section)
            marks = {mark for _, names, _ in blocks for mark in names.split()}
            if blocks:
                title = section.splitlines()[0].strip("# ")
                yield pytest.param(
                    [(language, code) for language, _, code in blocks],
                    id=f"{page.name}: {title}",
                    marks=[getattr(pytest.mark, mark) for mark in sorted(marks)],
                )


@pytest.fixture
def reader(tmp_path, monkeypatch, tiny_folder):
    """Runs one block after another in an empty folder, with a tiny model in place of the hub's.

    What is to be compiled is captured as a graph and run as it is, since to build kernels takes
    minutes; commands that leave the steps of a sampler open take two, and code four at most.
    """
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = {}

    def run(language, code):
        if language == "python":
            code = code.replace(HUB_ID, str(tiny_folder)).replace('"cuda"', '"cpu"')
            code = re.sub(r"(?<=num_inference_steps=)\d+", lambda n: str(min(int(n[0]), 4)), code)
            code = code.replace('mode="max-autotune"', 'backend="eager"')
            exec(compile(code, "<docs>", "exec"), names)
            return
        for line in code.splitlines():
            if line.startswith("$ lumina "):
                words = shlex.split(line)[2:]
                flags = {word[2:] for word in words if word.startswith("--")}
                if words[0] in TASKS and not flags & OF_STEPS:
                    words += ["--steps", "2"]
                assert main(words) == 0, line

    return run


@pytest.mark.parametrize("blocks", list(sections()))
def test_the_code_of_the_docs_runs(reader, blocks):
    for language, code in blocks:
        reader(language, code)


def anchors_of(text):
    """What GitHub calls the headings of a page: repeated ones are numbered."""
    seen = {}
    for heading in re.findall(r"^#{1,6} +(.*?)[ #]*$", without_code(text), flags=re.MULTILINE):
        shown = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = seen[name] = seen.get(name, -1) + 1
        yield f"{name}-{number}" if number else name


def without_code(text):
    return re.sub(r"^ *(```|~~~).*?^ *\1", "", text, flags=re.MULTILINE | re.DOTALL)


def test_anchors_are_lower_case_words_and_code_has_none():
    text = "# A b, `c`!\n\n```sh\n# not this\n```\n\n## [A](x.md) b-c\n\n## A b, c\n"
    assert list(anchors_of(text)) == ["a-b-c", "a-b-c-1", "a-b-c-2"]


def test_links_lead_somewhere():
    for page in [*PAGES, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]:
        text = without_code(page.read_text(encoding="utf-8"))
        for file, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name}: {file}"
            if anchor:
                anchors = list(anchors_of(target.read_text(encoding="utf-8")))
                assert anchor in anchors, f"{page.name}: {file}#{anchor}"
