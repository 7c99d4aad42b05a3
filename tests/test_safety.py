"""No code of the project unpickles, evaluates text, or hands text to a shell."""

import ast
import io
import tokenize

import pytest

from sources import MODULES, NOTEBOOKS, ROOT, text

PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Functions that unpickle, or run a text as code or as a command, by their last two names.
BANNED = {
    "torch.load", "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle",
    "subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec",
}  # fmt: skip
# Arguments that may only be given as a plain False.
SWITCHES = {"allow_pickle", "shell", "trust_remote_code"}
SOURCES = [*MODULES.values(), *sorted((ROOT / "benchmarks").glob("*.py")), *NOTEBOOKS]


def last_names(node: ast.expr) -> str:
    """`torch.load` for torch.load, for a.torch.load and for nothing else; `eval` for eval."""
    if isinstance(node, ast.Attribute):
        return f"{last_names(node.value).rpartition('.')[2]}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(source: str) -> list[str]:
    """What Python source does that it should not, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Name | ast.Attribute):
            names = [last_names(node)]
        elif isinstance(node, ast.keyword) and node.arg in SWITCHES:
            constant = isinstance(node.value, ast.Constant) and node.value.value is False
            names = [] if constant else [f"{node.arg}="]
        found += [
            f"line {node.lineno}: {name}"
            for name in names
            if name in BANNED or name.endswith("=") or name.split(".")[0] in PICKLES
        ]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_unpickles_evaluates_or_opens_a_shell(path):
    assert offences(text(path)) == []


def test_nor_does_the_snakefile():
    # Not plain Python, but its words are. Its own rules run in a shell, with quoted parameters.
    source = (ROOT / "Snakefile").read_text(encoding="utf-8")
    words = tokenize.generate_tokens(io.StringIO(source).readline)
    names = {word.string for word in words if word.type == tokenize.NAME}
    assert "configure" in names
    banned = {"eval", "exec", "system", "popen", "subprocess", "torch"}
    assert not names & (PICKLES | banned | SWITCHES - {"shell"})  # which begins a rule's command


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "from os import system",
        "import dill as d",
        "import torch\nx = torch.load('a')",
        "torch.load('a', weights_only=True)",
        "from torch import load",
        "loader = torch.load",
        "np.load('a', allow_pickle=True)",
        "np.load('a', allow_pickle=maybe)",
        "subprocess.run('ls', shell=True)",
        "load_dataset('a', trust_remote_code=True)",
        "eval('1')",
        "exec('x = 1')",
        "os.system('ls')",
        "pd.read_pickle('a')",
    ],
)
def test_every_offence_is_seen(source):
    assert offences(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "np.load('a', allow_pickle=False)",
        "subprocess.run(['ls'])",
        "json.load(file)",
    ],
)
def test_what_only_looks_like_one_is_let_pass(source):
    assert not offences(source)
