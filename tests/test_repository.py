"""The repository as a whole: what is packaged, that links lead somewhere, and that the command line is documented."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import partita
from partita.cli import _parser

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
PERSONAL = re.compile(r"(?<![\w.])/(?:home|root|Users|work|opt|mnt|srv)/\w+")


def tracked() -> list[Path]:
    """The files of the repository; a copy without git has no list of them."""
    try:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        files = [ROOT / name for name in names.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [file for file in files if file.is_file()]


def texts(*suffixes: str) -> list[tuple[Path, str]]:
    return [(file, file.read_text("utf-8")) for file in tracked() if file.suffix in suffixes]


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == partita.__version__
    assert f"## {partita.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_package_has_its_marker():
    """Folders without `__init__.py` are left out of the wheel."""
    folders = {file.parent for file in tracked() if file.is_relative_to(ROOT / "partita")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_packaged_files_are_of_known_kinds():
    """What else lies in the package must be named in pyproject's package-data, or it is not installed."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    files = [file for file in tracked() if file.is_relative_to(ROOT / "partita") and file.suffix != ".py"]
    assert [str(file) for file in files if not any(file.match(pattern) for pattern in data)] == []


def test_links_in_the_documentation_lead_somewhere():
    broken = [
        f"{file.relative_to(ROOT)}: {target}"
        for file, text in texts(".md")
        for target in LINK.findall(CODE.sub("", text))
        if not (file.parent / target).exists()
    ]
    assert broken == []


def test_no_path_of_one_machine():
    suffixes = (".py", ".c", ".h", ".md", ".toml", "")
    found = [
        f"{file.relative_to(ROOT)}: {match}"
        for file, text in texts(*suffixes)
        for match in PERSONAL.findall(text)
        if file != Path(__file__)
    ]
    assert found == []


def test_every_module_says_what_it_is_for():
    silent = [
        str(file.relative_to(ROOT))
        for file, text in texts(".py")
        if file.is_relative_to(ROOT / "partita") and text.strip() and not text.startswith('"""')
    ]
    assert silent == []


def test_every_subcommand_is_in_the_documentation():
    (commands,) = [action for action in _parser()._actions if action.choices]
    text = (ROOT / "docs" / "cli.md").read_text()
    for name, parser in dict(commands.choices or {}).items():
        assert f"partita {name}" in text
        for action in parser._actions:
            for option in action.option_strings:
                assert not option.startswith("--") or option == "--help" or f"`{option}" in text, f"{name} {option}"


def test_the_readme_commands_name_files_and_extras_that_exist():
    text = (ROOT / "README.md").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [extra for group in re.findall(r"'\.\[([\w,]+)\]'", text) for extra in group.split(",")]
    assert set(named) <= set(extras)
    scripts = re.findall(r"python (examples/\S+\.py)", text)
    assert scripts
    assert all((ROOT / script).exists() for script in scripts)


LARGEST_HOUSE = 5_950  # lines of all operators and of the C that they share: what a newcomer can still read


def test_operators_stay_readable_in_an_afternoon():
    """What a new operator needs is paid for by a better idea elsewhere, or the limit is raised with a reason."""
    folders = {ROOT / "partita/ir/operators": ".py", ROOT / "partita/backends/cpu/c": ".h"}
    files = [file for file in tracked() if folders.get(file.parent) == file.suffix]
    assert files
    assert sum(len(file.read_text("utf-8").splitlines()) for file in files) <= LARGEST_HOUSE
