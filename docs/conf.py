"""The manual's build, `make docs`: Markdown that GitHub shows as well; warnings are errors."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "AuraStream"
author = "the AuraStream authors"
release = version = version_of("aurastream")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "README.md", "reference/make.py"]  # README.md: included by index.md
nitpicky = True  # a reference that leads nowhere fails the build

myst_heading_anchors = 3  # headings are link targets by the names GitHub gives them
myst_enable_extensions: list[str] = []  # nothing that GitHub would show as it is written

# A console block is commands and what they print; a line of output that reads like shell is no fault.
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "none"

html_theme = "furo"
pygments_dark_style = "monokai"
html_title = f"AuraStream {release}"
html_copy_source = html_show_sourcelink = html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["manual.css"]
