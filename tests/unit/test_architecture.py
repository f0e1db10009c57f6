"""Who may import whom: arrows point down the list in the design, and the product meets the local cluster at one seam."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = {"mistral_on_l4", "embedded", "components", "policies", "bench", "tests"}
# What a package of mistral_on_l4 may import, beside itself: what stands on the lines above it.
LAYERS = (
    {"files"},
    {"config"},
    {"planner"},
    {"jobs"},
    {"manifests"},
    {"cluster", "aws", "measuring"},
    {"openshift"},
    {"pull_request", "web", "report"},
    {"cli"},
    {"__main__"},
)
SEAM = "mistral_on_l4/cluster/local.py"


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """(file, imported module) for every import of the project's own code in a folder, also those within functions."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        file = path.relative_to(ROOT)
        for node in ast.walk(ast.parse(path.read_text())):
            for module in _modules(node, file):
                if module.partition(".")[0] in PROJECT:
                    yield str(file), module


def _modules(node: ast.AST, file: Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = ".".join(file.parent.parts[: len(file.parent.parts) - node.level + 1]) if node.level else ""
    module = ".".join(part for part in (package, node.module) if part)
    # `from mistral_on_l4 import config` names the package in its list.
    return [f"{module}.{alias.name}" for alias in node.names] if "." not in module else [module]


def layer(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def test_imports_are_found_however_they_are_written() -> None:
    source = "import embedded.home\nfrom embedded import home\nfrom .a import b\nfrom ..planner import plan\ndef f():\n    from policies import x\n"
    nodes = ast.walk(ast.parse(source))
    found = {module for node in nodes for module in _modules(node, Path("mistral_on_l4/config/file.py"))}
    assert found == {"embedded.home", "mistral_on_l4.config.a", "mistral_on_l4.planner", "policies.x"}


def test_the_product_meets_the_local_cluster_at_one_seam() -> None:
    importers = {
        file
        for folder in ("mistral_on_l4", "components", "policies")
        for file, module in imports(folder)
        if module.partition(".")[0] == "embedded"
    }
    assert importers == {SEAM}


def test_the_seam_imports_nothing_before_it_is_asked() -> None:
    imported = {alias for node in ast.parse((ROOT / SEAM).read_text()).body for alias in _modules(node, Path(SEAM))}
    assert not [module for module in imported if module.partition(".")[0] in PROJECT]


def test_the_program_and_its_policies_are_no_business_of_what_they_use() -> None:
    for folder in ("mistral_on_l4", "embedded"):
        assert [
            found for found in imports(folder) if found[1].partition(".")[0] in ("components", "policies", "bench", "tests")
        ] == []
    assert [found for found in imports("components") if found[1].partition(".")[0] in ("policies", "bench", "tests")] == []


def test_arrows_between_packages_point_down() -> None:
    upward = []
    for file, module in imports("mistral_on_l4"):
        importer, parts = Path(file).with_suffix("").parts[1], module.split(".")
        if parts[0] == "mistral_on_l4" and importer != parts[1] and layer(parts[1]) >= layer(importer):
            upward.append(f"{file} imports {module}")
    assert upward == []


def test_jobs_import_only_jobs() -> None:
    assert [found for found in imports("mistral_on_l4/jobs") if not found[1].startswith("mistral_on_l4.jobs")] == []


@pytest.mark.parametrize("name", ["mistral_on_l4.cli", "embedded.cli"])
def test_every_command_is_in_the_table_with_a_module_that_has_an_application(name: str) -> None:
    from mistral_on_l4.cli import COMMANDS

    modules = [module for module, _ in COMMANDS.values() if module.rpartition(".")[0] == name]
    assert modules
    for module in modules:
        assert "app = typer.Typer(" in (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
