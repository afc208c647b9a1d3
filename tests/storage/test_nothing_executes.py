"""No pickle is ever loaded and no YAML but the safe kind, wherever files are read."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("src", "workflow", "benchmarks")
    for path in (PROJECT / folder).rglob("*")
    if path.suffix in (".py", ".smk")
)
SOURCES.append(PROJECT / "Snakefile")
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "_UniqueKeyLoader"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
EXECUTES = {"eval", "exec", "compile", "__import__"}
OBJECTS = {"send_object_list", "recv_object_list", "broadcast_object_list", "gather_object"}
OBJECTS |= {"all_gather_object", "scatter_object_list"}  # of torch.distributed: pickles
READERS = {"yaml", "numpy", "np", "torch", "pandas", "pd"}  # called by their module's name only
LOOKS_LIKE = re.compile(
    rf"^\s*(import|from)\s.*\b({'|'.join(PICKLES)})\b"
    rf"|^\s*from\s+({'|'.join(READERS)})\b\S*\s+import\s.*(load|\*)"
    rf"|^\s*import\s+({'|'.join(READERS)})\s+as\s+(?!np$|pd$)"
    rf"|(?<![\w.])({'|'.join(EXECUTES)})\("
    r"|\b(yaml|np|numpy|torch)\.\w*load\w*\((?<!\.safe_load\()"
    r"|^\s*class\s.*\b(?!C?SafeLoader\b)\w*Loader\)"
    r"|\.(unpack_archive|extractall|extract|loadmat|read_pickle)\("
    rf"|\b({'|'.join(OBJECTS)})\b"
    r"|\ballow_pickle=(?!False\b)"
    r"|\bshell=True"
)


def faults(path: Path) -> list[str]:
    """What in a file could run what it reads, by line."""
    text = path.read_text()
    try:
        tree = ast.parse(text)
    except SyntaxError:  # Snakemake's own statements: by their looks
        return [line.strip() for line in text.splitlines() if LOOKS_LIKE.search(line)]
    found = []
    for node in ast.walk(tree):
        fault = None
        if isinstance(node, ast.Import | ast.ImportFrom):
            if import_fault(node):
                fault = ast.unparse(node)
        elif isinstance(node, ast.Call):
            fault = call_fault(node)
        elif isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            loaders = [base for base in bases if base.endswith("Loader")]
            fault = next((b for b in loaders if b.split(".")[-1] not in SAFE_LOADERS), None)
        if fault:
            found.append(f"line {node.lineno}: {fault}")
    return found


def import_fault(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether it brings in what unpickles, or a reader that call_fault would not recognise."""
    names = {alias.name for alias in node.names}
    if isinstance(node, ast.Import):
        renamed = {alias.name for alias in node.names if alias.asname not in (None, "np", "pd")}
        return bool({name.split(".")[0] for name in names} & PICKLES or renamed & READERS)
    module = (node.module or "").split(".")[0]
    reads = module in READERS and any("load" in name or name == "*" for name in names)
    return reads or bool(({module} | names) & (PICKLES | OBJECTS))


def call_fault(call: ast.Call) -> str | None:
    name, text = ast.unparse(call.func), ast.unparse(call)
    last = name.split(".")[-1]
    keywords = {k.arg: k.value for k in call.keywords}
    if name in EXECUTES or last in ("unpack_archive", "extractall", "extract"):
        return text
    if name.startswith("yaml.") and "load" in last and last != "safe_load":
        loader = keywords.get("Loader") or (call.args[1] if len(call.args) > 1 else None)
        safe = last == "load" and loader is not None
        return None if safe and ast.unparse(loader).split(".")[-1] in SAFE_LOADERS else text
    if name in ("np.load", "numpy.load") or "allow_pickle" in keywords:
        pickles = keywords.get("allow_pickle")
        return None if isinstance(pickles, ast.Constant) and pickles.value is False else text
    if name in ("torch.load", "torch.jit.load", "pd.read_pickle", "pandas.read_pickle"):
        return text
    if last in OBJECTS:
        return text
    if last == "read_pickle":
        return text
    # SciPy's reader executes nothing, but it crashes on damaged files: only behind a checksum.
    if last == "loadmat" and "variable_names" not in keywords:
        return text
    if "shell" in keywords and ast.unparse(keywords["shell"]) != "False":
        return text
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_nothing_read_is_run(path):
    assert faults(path) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import os, pickle",
        "from pickle import loads",
        "from six.moves import cPickle",
        "import yaml\nyaml.load(x, yaml.Loader)",
        "yaml.load(x)",
        "yaml.unsafe_load(x)",
        "yaml.full_load_all(x)",
        "class A(yaml.FullLoader): pass",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "np.load(x, allow_pickle=y)",
        "torch.load(x, weights_only=True)",
        "eval(x)",
        "tarfile.open(x).extractall()",
        "subprocess.run(x, shell=True)",
        "scipy.io.loadmat(x)",
        "from yaml import load",
        "from numpy import load",
        "from yaml import *",
        "from torch.serialization import load",
        "import yaml as y",
        "np.lib.format.read_array(x, allow_pickle=True)",
        "dist.broadcast_object_list(x)",
        "dist.all_gather_object(x, y)",
        "from torch.distributed import gather_object",
    ],
)
def test_the_scan_finds(tmp_path, text):
    """In Python, and in a file with Snakemake's statements."""
    for content in (text, f"rule a:\n    output: x\n{text}"):
        (tmp_path / "a.py").write_text(content)
        assert faults(tmp_path / "a.py")
