"""Build .venv from requirements.lock; `make environment` calls it.

It needs only Python 3.11 or newer, and uses only the standard library, because it runs before
anything is installed. Any pip installs uv in the version of the lock, and uv installs the rest.
Both check every file against the lock's hashes.
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
    """Exit with one line."""
    sys.exit("make: " + message)


def call(*command, env=None):
    """Run a command. If it fails, exit with one line that names it; it has printed the reason."""
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
    """Return the environment for pip and uv; settings of pip apply to uv, too."""
    env = dict(os.environ)
    env.setdefault("UV_HTTP_TIMEOUT", "180")  # seconds; the largest wheel has 900 MB
    if "PIP_INDEX_URL" in env:
        env.setdefault("UV_DEFAULT_INDEX", env["PIP_INDEX_URL"])
    if os.path.exists(SYSTEM_CERTIFICATES):  # includes a company's own certificates
        env.setdefault("UV_SYSTEM_CERTS", "true")
        env.setdefault("REQUESTS_CA_BUNDLE", SYSTEM_CERTIFICATES)
    return env


def find_pip(scratch):
    """Return the command of any pip that can install into .venv.

    Debian splits Python: without python3-venv there is no ensurepip, without python3-pip no pip.
    The last resort is the pip wheel in Debian's archive, which apt downloads and checks without
    root privileges.
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
    """Download Debian's package python3-pip-whl; return a list with its wheel, or an empty one."""
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
    """Return the lines of requirements.lock that pin uv, with the hashes."""
    lines, inside = [], False
    with open(LOCK, encoding="utf-8") as lock:
        for line in lock:
            if not line.startswith((" ", "#")):
                inside = line.startswith("uv==")
            if inside:
                lines.append(line)
    return "".join(lines)


def main():
    """Create or update .venv so that it has exactly the packages of the lock, and vlae itself."""
    if sys.version_info < (3, 11):
        this = f"{sys.executable} is {sys.version_info[0]}.{sys.version_info[1]}"
        stop(f"Python 3.11 or newer is needed, {this}; choose another with PYTHON=...")
    startup.move_caches(VENV)  # pip and uv cache their downloads
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
    # Packages that are not in the lock, such as pip, are removed. uv can replace itself.
    call(UV, "pip", "sync", "-q", "--python", PYTHON, "--require-hashes", LOCK, env=env)
    # vlae itself, editable. Its build backend is in the lock, so nothing is downloaded.
    editable = ["--offline", "--no-deps", "--no-build-isolation", "-e", ROOT]
    call(UV, "pip", "install", "-q", "--python", PYTHON, *editable, env=env)
    where = [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.check_output(where, text=True).strip()
    startup.install(packages)
    dvc_patched.install(packages, os.path.join(VENV, "bin", "dvc"))


if __name__ == "__main__":
    main()
