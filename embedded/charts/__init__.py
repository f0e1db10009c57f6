"""Small Helm charts that stand for the projects' own in a rehearsal, which can reach no chart repository.

Each has the name and version that components/charts.py installs, refuses values that the project's chart has not got
(values.schema.json), and brings what the stack and the rehearsal's controllers need of it. README.md says what that is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def chart_folders() -> list[Path]:
    """One folder per chart, as they are kept here: without what is only known where a cluster runs."""
    return sorted(file.parent for file in FOLDER.glob("*/Chart.yaml"))


def lay_charts(folder: Path, definitions: Path, webhooks: Sequence[Mapping[str, Any]]) -> None:
    """Puts complete charts into `folder`, in place of whatever is there.

    definitions: a folder with KServe's CustomResourceDefinitions, one JSON file each (embedded.crds); webhooks: the webhook
    configurations of the cluster's KServe process, of which only its start knows address and authority (embedded.kserve).
    """
    shutil.rmtree(folder, ignore_errors=True)
    for chart in chart_folders():
        shutil.copytree(chart, folder / chart.name)
    kinds = folder / "kserve-crd" / "files"
    kinds.mkdir()
    for file in sorted(definitions.glob("*.json")):
        shutil.copyfile(file, kinds / file.name)
    configurations = folder / "kserve-resources" / "files"
    configurations.mkdir()
    for webhook in webhooks:
        (configurations / f"{webhook['kind']}.json".lower()).write_text(json.dumps(webhook))
