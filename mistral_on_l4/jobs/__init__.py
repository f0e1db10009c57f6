"""Scripts that run inside the cluster, in KServe's storage-initializer image, mounted from a ConfigMap.

They are ordinary modules of this package, typed and tested as such, that use the standard library, boto3, huggingface_hub,
requests and one another, nothing else. In the ConfigMap they lie flat, side by side with the script that `python` starts, so
`scripts` takes the package's name out of their imports.
"""

from __future__ import annotations

import re
from pathlib import Path

_FOLDER = Path(__file__).parent
_IMPORT = re.compile(rf"^(\s*)from {re.escape(__name__)}\.(\w+) import ", re.MULTILINE)


def scripts(name: str) -> dict[str, str]:
    """File name -> text of script `name` and of every module of this package that it imports, for a ConfigMap.

    Raises FileNotFoundError for a name that is no module here.
    """
    texts: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if f"{module}.py" not in texts:
            text = (_FOLDER / f"{module}.py").read_text(encoding="utf-8")
            waiting.extend(found.group(2) for found in _IMPORT.finditer(text))
            texts[f"{module}.py"] = _IMPORT.sub(r"\1from \2 import ", text)
    return dict(sorted(texts.items()))
