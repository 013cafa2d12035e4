"""The site of the documentation: `scripts/docs` builds it into build/docs.

The pages are the Markdown files of this folder, which also read well where the source is browsed,
and the reference, which is made of docstrings. Files at the top of the checkout have a page each.
"""

from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path
from typing import Any, Final

from sphinx.addnodes import pending_xref, pending_xref_condition
from sphinx.ext.napoleon.docstring import GoogleDocstring

import eventlog

HERE: Final = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "eventlog"
copyright = "the authors of eventlog"  # noqa: A001 - Sphinx asks for this name
version = release = eventlog.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "command_reference"]
exclude_patterns = ["README.md"]  # the index for those who browse the source
root_doc = "index"
highlight_language = "text"  # drawings; code names its language
default_role = "py:obj"  # `name` in a docstring: a link where the name is known, else code
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"eventlog {version}"
html_copy_source = False

TOP_FILES: Final = {
    "index": "README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
}
"""The files at the top of the checkout, by their page."""


def take_top_file(app: Any, page: str, source: list[str]) -> None:
    """Put the file at the top of the checkout into its page, and lead links to it there.

    A page that no table of contents names becomes a guide.
    """
    if page in TOP_FILES:
        path = HERE.parent / TOP_FILES[page]
        app.env.note_dependency(str(path))
        _, found, contents = source[0].partition("```{toctree}")
        others = app.env.found_docs - {"index", *contents.split()}
        guides = sorted(one for one in others if not one.startswith("reference/"))
        contents = contents.replace("(others)", "\n".join(guides))
        text = path.read_text().replace("](docs/", "](")
        source[0] = text + "\n" + found + contents
    for place, file in TOP_FILES.items():
        source[0] = (
            source[0].replace(f"](../{file}", f"]({place}.md").replace(f"]({file}", f"]({place}.md")
        )


def show_programs(_app: Any, _page: str, source: list[str]) -> None:
    """Put each program behind the paragraph that begins with a link to it."""
    shown = r"\1\n\n```{literalinclude} \2\n:language: python\n```"
    source[0] = re.sub(r"(?ms)^(\[[\w.]+\]\(([\w/]+\.py)\).*?)(?=\n\n|\Z)", shown, source[0])


def take_sections(
    _app: Any, what: Any, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Turn sections of Google's style into fields, but in attributes, which have a text alone."""
    if what not in ("attribute", "data"):
        kind: Any = "method" if what == "property" else what
        lines[:] = GoogleDocstring(lines, None, None, kind, name, thing, options).lines()


def drop_signature_of_errors(
    _app: Any, what: str, _name: str, _thing: Any, _options: Any, signature: str, returned: str
) -> tuple[str, str]:
    """Show errors without the arguments with which only the package makes them."""
    return ("", "") if signature and what == "exception" else (signature, returned)


def settle_types(_app: Any, document: Any) -> None:
    """Types in signatures: those of Python are no links, and ours lead to their public names."""
    for link in list(document.findall(pending_xref)):
        target = link["reftarget"]
        if link.get("refdomain") != "py":
            continue
        if hasattr(builtins, target):
            is_given_twice = isinstance(link.children[0], pending_xref_condition)
            link.replace_self((link.children[0] if is_given_twice else link).children)
        elif target in eventlog.__all__ and link.get("py:module") != "eventlog.blocking":
            link["reftarget"] = f"eventlog.{target}"


def setup(app: Any) -> None:
    """Join the above to the build."""
    app.connect("env-get-outdated", lambda *_: ["index"])  # there may be pages that are new
    app.connect("source-read", take_top_file)
    app.connect("source-read", show_programs)
    app.connect("autodoc-process-docstring", take_sections)
    app.connect("autodoc-process-signature", drop_signature_of_errors)
    app.connect("doctree-read", settle_types)
