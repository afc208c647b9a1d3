"""No pickle is ever loaded and no YAML but the safe kind, wherever files are read."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for folder in ("src", "workflow", "benchmarks")
    for path in (PROJECT / folder).rglob("*")
    if path.suffix in (".py", ".smk")
)
SOURCES.append(PROJECT / "Snakefile")
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "_UniqueKeyLoader", "LockLoader"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
EXECUTES = {"eval", "exec", "compile", "__import__"}
OBJECTS = {"send_object_list", "recv_object_list", "broadcast_object_list", "gather_object"}
OBJECTS |= {"all_gather_object", "scatter_object_list"}  # of torch.distributed: pickles
READERS = {"yaml", "numpy", "np", "torch", "pandas", "pd"}  # called by their module's name only
LOOKS_LIKE = re.compile(
    rf"^\s*(import|from)\s+({'|'.join(PICKLES)})\b"
    rf"|^\s*from\s+({'|'.join(READERS)})\s+import\s.*load"
    rf"|(?<![\w.])({'|'.join(EXECUTES)})\("
    r"|\b(yaml|np|numpy|torch)\.\w*load\w*\((?<!\.safe_load\()"
    r"|^\s*class\s.*\b(?!C?SafeLoader\b)\w*Loader\)"
    r"|\.(unpack_archive|extractall|extract|loadmat|read_pickle)\("
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
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            fault = next((name for name in names if name.split(".")[0] in PICKLES), None)
            if getattr(node, "module", None) in READERS and any("load" in n for n in names):
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
    if name in ("np.load", "numpy.load"):
        pickles = keywords.get("allow_pickle")
        return None if isinstance(pickles, ast.Constant) and pickles.value is False else text
    if name in ("torch.load", "torch.jit.load", "pd.read_pickle", "pandas.read_pickle"):
        return text
    if last in OBJECTS:
        return text
    if last in ("loadmat", "read_pickle"):  # SciPy's reader crashes on damaged files
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
        "from pickle import loads",
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
    ],
)
def test_the_scan_finds(tmp_path, text):
    """In Python, and in a file with Snakemake's statements."""
    for content in (text, f"rule a:\n    output: x\n{text}"):
        (tmp_path / "a.py").write_text(content)
        assert faults(tmp_path / "a.py")


def test_the_scan_finds_objects_between_processes(tmp_path):
    (tmp_path / "a.py").write_text("dist.broadcast_object_list(x)\ndist.all_gather_object(x, y)")
    assert len(faults(tmp_path / "a.py")) == 2
