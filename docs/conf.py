"""Settings of Sphinx. What it reads is put together by `collect.py`; `make site` runs both."""

import ast
import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def constant(path, name):
    """The value of a constant in a module that is not imported, for that would need torch."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"{path} has no constant {name}")


project = "g2lstm"
author = "The g2lstm authors"
version = release = constant("g2lstm/__init__.py", "__version__")
html_title = f"g2lstm {version}"
html_copyright = html_show_sphinx = False

extensions = ["myst_nb", "autoapi.extension", "sphinx.ext.napoleon"]
suppress_warnings = ["autoapi.python_import_resolution"]  # of constants without docstrings

# Markdown and notebooks as they were executed.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

# The reference comes from the sources; the package is not imported.
exclude_patterns = ["api/g2lstm/index.rst"]  # reference.md stands for it
autoapi_dirs = [str(ROOT / "g2lstm")]
autoapi_root = "api"  # as in pages.py
autoapi_options = ["members", "undoc-members", "show-module-summary"]
autoapi_member_order = "bysource"
autoapi_add_toctree_entry = False
autoapi_keep_files = True
napoleon_use_ivar = True
default_role = "py:obj"
add_module_names = False
toc_object_entries = False  # each page lists its objects; in every sidebar they cost minutes

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False

# One file holds MathJax with its fonts; the menu would load more.
_mathjax = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
html_static_path.append(str(_mathjax / "static/mathjax/tex-svg.js"))
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}


def resolve_short_name(app, env, node, content):
    """`gates.gumbel_gate` and, where one module alone has it, `gumbel_gate`, as docstrings say."""
    target = node.get("reftarget", "")
    objects = env.domains.python_domain.objects
    found = [name for name in objects if name == target or name.endswith(f".{target}")]
    if node.get("refdomain") != "py" or len(found) != 1:
        return None
    (name,) = found
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", name, node, content
    )


def keep_lists(app, what, name, obj, options, lines):
    """A module's list under a line such as "Environment variables:" is shown as it is written."""
    for number in reversed(range(len(lines) - 1)):
        heading, entry = lines[number : number + 2]
        if what == "module" and re.match(r"\S.*[^:]:$", heading) and entry.startswith("    "):
            lines[number : number + 1] = [f"{heading}:", ""]


def setup(app):
    app.connect("autodoc-process-docstring", keep_lists, priority=400)  # before napoleon
    app.connect("missing-reference", resolve_short_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
