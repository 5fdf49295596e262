"""The guitar of the package on the first page, to be played: exported when the site is built.

A hook of mkdocs. Where the page of `nms_export --web` is not built (`make web`), a sentence says so in its place.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

_FOLDER = "guitar"
_MARK = "<!-- player -->"
_BUILT = pathlib.Path(__file__).parent.parent / "neural_midi_synth" / "exporting" / "web" / "built" / "index.html"
_PLAYER = (
    f'<iframe class="player" src="{_FOLDER}/index.html" title="The guitar of the package, to be played" '
    'loading="lazy" allow="autoplay; midi"></iframe>'
)
_MISSING = "*Here the guitar can be played where the site was built after `make web`, which needs Node.js 20.*"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the player where the first page has its mark.

    Args:
        markdown: Of any page.

    Returns:
        The same with the player.
    """
    return markdown.replace(_MARK, _PLAYER if _BUILT.is_file() else _MISSING)


def on_post_build(config: Any, **_: Any) -> None:
    """Exports the guitar into the site.

    Args:
        config: mkdocs' configuration.

    Raises:
        CalledProcessError: It can't be exported.
    """
    if _BUILT.is_file():
        folder = os.path.join(config["site_dir"], _FOLDER)
        command = [sys.executable, "-m", "neural_midi_synth.commands.export", "--web", folder]
        subprocess.run(command, check=True, capture_output=True)
