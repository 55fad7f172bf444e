"""How Sphinx builds these pages: Markdown through MyST, the reference from docstrings."""

import re

import crossroads

project = "Crossroads"
author = "the Crossroads authors"
copyright = "the Crossroads authors"  # noqa: A001 - Sphinx wants this name
version = release = crossroads.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Crossroads {release}"
# A fence without a language is a picture or a listing, not code.
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# Written as in the source, not spelt out.
autodoc_type_aliases = {name: name for name in ("ArrayLike", "ClassNames", "NDArray", "Source")}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = False
# The docstrings put plain names in single backticks.
default_role = "code"


def _plain_aliases(*event):
    """Signature and return type, the last two of what Sphinx hands over, without its ``TypeAliasForwardRef('ArrayLike')``."""
    return tuple(text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text) for text in event[-2:])


def setup(app):  # noqa: D103 - Sphinx calls it
    app.connect("autodoc-process-signature", _plain_aliases)
