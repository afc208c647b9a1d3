"""Build .venv from requirements.lock; `make environment` calls it.

Needs Python 3.11 or newer and nothing else: the standard library only, so it runs before
anything is installed. pip (whichever can be found) installs one package, the uv that the
lock pins, and uv installs the rest; both check every file against the lock's hashes.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

import dvc_patched
import startup

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
UV = os.path.join(VENV, "bin", "uv")
LOCK = os.path.join(ROOT, "requirements.lock")
SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def stop(message):
    """End with one line."""
    sys.exit("make: " + message)


def call(*command, env=None):
    """Run a command; end with one line naming it if it fails (it has said why)."""
    code = subprocess.call(command, cwd=ROOT, env=env)
    if code:
        stop(f"failed with exit status {code}: {' '.join(command)}")


def succeeds(*command):
    """Return True if a command runs and exits with 0; its output is not shown."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def network():
    """The environment for pip and uv: what one has been told, told to both."""
    env = dict(os.environ)
    env.setdefault("UV_HTTP_TIMEOUT", "180")  # seconds; the largest wheel has 900 MB
    if "PIP_INDEX_URL" in env:
        env.setdefault("UV_DEFAULT_INDEX", env["PIP_INDEX_URL"])
    if os.path.exists(SYSTEM_CERTIFICATES):  # knows a company's own certificates too
        env.setdefault("UV_SYSTEM_CERTS", "true")
        env.setdefault("REQUESTS_CA_BUNDLE", SYSTEM_CERTIFICATES)
    return env


def find_pip(scratch):
    """The command of a pip that installs into .venv, wherever one can be had.

    Debian splits Python: without python3-venv there is no ensurepip, without python3-pip
    no pip. The last resort is the pip wheel of Debian's own archive, which apt checks
    and downloads without being root.
    """
    if succeeds(PYTHON, "-m", "ensurepip"):
        return [PYTHON, "-m", "pip"]
    if succeeds(sys.executable, "-m", "pip", "--python", PYTHON, "--version"):
        return [sys.executable, "-m", "pip", "--python", PYTHON]
    wheels = glob.glob("/usr/share/python-wheels/pip-*.whl")
    if not wheels and shutil.which("apt-get"):
        wheels = download_pip_wheel(scratch)
    if wheels:
        return [sys.executable, os.path.join(max(wheels), "pip"), "--python", PYTHON]
    return stop("this Python has neither ensurepip nor pip; run: apt-get install python3-venv")


def download_pip_wheel(scratch):
    """pip's wheel out of Debian's package python3-pip-whl: a list with its path, or empty."""
    lists = os.path.join(scratch, "lists", "partial")
    os.makedirs(lists)
    apt = ["apt-get", "-qq", "-o", "Dir::State::lists=" + os.path.dirname(lists)]
    for command in ([*apt, "update"], [*apt, "download", "python3-pip-whl"]):
        if subprocess.call(command, cwd=scratch, stderr=subprocess.DEVNULL):
            return []
    for package in glob.glob(os.path.join(scratch, "*.deb")):
        call("dpkg-deb", "-x", package, scratch)
    return glob.glob(os.path.join(scratch, "usr/share/python-wheels/pip-*.whl"))


def uv_requirement():
    """The lines of requirements.lock that pin uv, hashes included."""
    lines, inside = [], False
    with open(LOCK, encoding="utf-8") as lock:
        for line in lock:
            if not line.startswith((" ", "#")):
                inside = line.startswith("uv==")
            if inside:
                lines.append(line)
    return "".join(lines)


def main():
    """Create or update .venv so that it holds exactly what the lock lists, and vlae itself."""
    if sys.version_info < (3, 11):
        this = f"{sys.executable} is {sys.version_info[0]}.{sys.version_info[1]}"
        stop(f"Python 3.11 or newer is needed, {this}; choose another with PYTHON=...")
    startup.move_caches(VENV)  # pip and uv keep what they download
    env = network()
    same = f"import sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    if not succeeds(PYTHON, "-c", same):
        print("make: creating .venv (about 6 GB, most of it PyTorch)", flush=True)
        call(sys.executable, "-m", "venv", "--clear", "--without-pip", VENV)
    if not succeeds(UV, "--version"):
        with tempfile.TemporaryDirectory() as scratch:
            requirement = os.path.join(scratch, "uv.txt")
            with open(requirement, "w", encoding="utf-8") as file:
                file.write(uv_requirement())
            pip = find_pip(scratch)
            call(
                *pip, "install", "-q", "--require-hashes", "--no-deps", "-r", requirement, env=env
            )
    # Exactly the lock: what is not in it (pip, say) is removed. A newer uv replaces itself.
    call(UV, "pip", "sync", "-q", "--python", PYTHON, "--require-hashes", LOCK, env=env)
    # vlae itself, editable; its build backend is in the lock, so nothing is downloaded.
    editable = ["--offline", "--no-deps", "--no-build-isolation", "-e", ROOT]
    call(UV, "pip", "install", "-q", "--python", PYTHON, *editable, env=env)
    where = [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.check_output(where, text=True).strip()
    startup.install(packages)
    dvc_patched.install(packages, os.path.join(VENV, "bin", "dvc"))


if __name__ == "__main__":
    main()
