"""How Sphinx builds the site of these pages: `make docs`.

Everything is Markdown, which reads as well where it lies; the notebook is run while the site is built.
"""

import re

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.highlighting import lexers

from samfit import __version__

project = "samfit"
author = "the samfit authors"
project_copyright = author
version = release = __version__

extensions = ["myst_nb"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
"""Depth to which a heading can be linked to, by the same anchors as on a forge."""
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_show_tb = True

lexers["csv"] = TextLexer()
html_theme = "furo"
html_title = f"samfit {version}"


def setup(app: Sphinx) -> None:
    """Take from the pages the links to files outside docs/, which are no part of the site."""
    app.connect("source-read", _without_links_outside)


def _without_links_outside(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = re.sub(r"\[([^]]+)\]\((?:\.\./)+(?:training/)?[A-Z_]+\.md(?:#[\w-]+)?\)", r"\1", source[0])
