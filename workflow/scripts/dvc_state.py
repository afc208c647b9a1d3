"""Reads from DVC which stages are recorded, and where their outputs are."""

import hashlib
import json
import os
from pathlib import Path

from dvc.repo import Repo, lock_repo

RECIPES = "recipes"
DATA = ("fetch@", "labels@")  # stages whose outputs are never published


def is_kept(out):
    """Return True if the recorded output is in the cache.

    DVC does not cache data sets; for them, the file itself counts.
    """
    if out.use_cache:
        return bool(out.hash_info) and not out.changed_cache()
    return out.exists and not out.workspace_status()


class Record:
    """DVC's view of the working directory at one moment."""

    def __init__(self, reconfigured=(), forced=()):
        # Stages that are outdated or forced, whatever DVC says.
        self.reconfigured = {*reconfigured}
        self.force(forced)
        # Under one lock, DVC reads dvc.yaml and dvc.lock once; else each call reads them again.
        with Repo(_wait_for_lock=True) as repo, lock_repo(repo):
            self.repo = repo
            self.status = repo.status()
            self.stages = {stage.addressing: stage for stage in repo.index.stages}
            self.outs = {
                name: [out.def_path for out in stage.outs] for name, stage in self.stages.items()
            }
            owner = {
                out.def_path: (name, out) for name, s in self.stages.items() for out in s.outs
            }
            made = {
                name: [(*owner[dep.def_path], dep) for dep in stage.deps if dep.def_path in owner]
                for name, stage in self.stages.items()
            }
            # upstream: the stages that make a stage's inputs. consistent: stages whose inputs have
            # the same hashes in dvc.lock as the outputs of the stages that make them.
            self.upstream = {name: [above for above, _, _ in deps] for name, deps in made.items()}
            self.consistent = {
                name
                for name, deps in made.items()
                if all(dep.hash_info and dep.hash_info == out.hash_info for _, out, dep in deps)
            }
            self.made = owner.keys()
            self.out = {path: out for path, (_, out) in owner.items()}
            self.results = [name for name in self.stages if name != RECIPES]
            self.cached = {
                name for name, stage in self.stages.items() if all(map(is_kept, stage.outs))
            }

    def force(self, stages):
        """Treat these stages, and all that depend on them, as outdated."""
        self.forced = {*stages}
        self._recorded = {}

    def _changes(self, stage, kind):
        """Return path -> its change, such as "modified"; kind is "deps" or "outs"."""
        found = [c for c in self.status.get(stage, []) if isinstance(c, dict)]
        return {p: how for c in found for p, how in c.get(f"changed {kind}", {}).items()}

    def only_settings_changed(self, stage):
        """Return True if nothing but parameters has changed since the stage was recorded."""
        known = all(isinstance(change, dict) for change in self.status.get(stage, []))
        changed = {*self._changes(stage, "deps"), *self._changes(stage, "outs")}
        return known and changed == {"params.yaml"}

    def unchanged(self, stage):
        """Return True if dvc.lock has the stage with the present command, parameters and inputs.

        For an input that another stage makes, the record in dvc.lock counts. The file itself may
        be missing, or old after a `git pull`: it is checked out later.
        """
        changes = self.status.get(stage, [])
        return (
            stage in self.consistent
            and stage not in self.reconfigured
            and stage not in self.forced
            and all(isinstance(change, dict) for change in changes)  # not the command
            and self._changes(stage, "deps").keys() <= self.made
        )

    def recorded(self, stage):
        """Return True if the stage and all that it depends on are unchanged."""
        if stage not in self._recorded:
            upstream = all(map(self.recorded, self.upstream[stage]))
            self._recorded[stage] = self.unchanged(stage) and upstream
        return self._recorded[stage]

    def recorded_stages(self):
        """Return the recorded stages, without the recipes."""
        return [name for name in self.results if self.recorded(name)]

    def published(self, stage):
        """Return True if the outputs of a stage can be in the cache and in a remote.

        Data sets never are.
        """
        return all(out.use_cache for out in self.stages[stage].outs)

    def out_of_place(self, stage):
        """Return the outputs of a stage that are missing or not as dvc.lock records.

        What only the cache lacks is in its place.
        """
        changed = self._changes(stage, "outs").keys()
        return [
            path
            for path in self.outs[stage]
            if not os.path.exists(path) or (path in changed and self.out[path].changed_checksum())
        ]

    def unsaved(self, path):
        """Return True if the cache lacks the present content of this output."""
        out = self.out[path]
        return out.exists and not out.cache.exists(out.get_hash().value)

    def in_remote(self, stages):
        """Return the recorded stages whose outputs are all in the remote. Nothing is fetched."""
        outs = {name: self.stages[name].outs for name in stages if self.published(name)}
        wanted = {out.hash_info.value for several in outs.values() for out in several}
        if not wanted:
            return set()
        try:
            with Repo() as repo:
                there = set(repo.cloud.get_remote_odb().list_oids_exists(wanted))
        except Exception:  # a remote can fail in many ways; then nothing is available
            return set()
        return {n for n, several in outs.items() if there >= {o.hash_info.value for o in several}}

    def json_outputs(self, stages):
        """Return stage -> content of the JSON file among its recorded outputs.

        The file is read from the cache, the working directory or the remote; stages without one
        are omitted. Nothing is written.
        """
        wanted = {
            name: out.hash_info.value
            for name in stages
            for out in self.stages[name].outs
            if out.hash_info and out.def_path.endswith(".json")
        }
        found, remote = {}, None
        for name, md5 in wanted.items():
            (path,) = [path for path in self.outs[name] if path.endswith(".json")]
            content = _read(self.repo.cache.local.oid_to_path(md5), md5) or _read(path, md5)
            if content is None and remote is not False:
                try:
                    remote = remote or Repo().cloud.get_remote_odb()
                    content = _checked(remote.fs.cat_file(remote.oid_to_path(md5)), md5)
                except FileNotFoundError:
                    pass
                except Exception:  # a remote can fail in many ways; it is not used any further
                    remote = False
            if content is not None:
                found[name] = content
        return found


def _read(path, md5):
    try:
        return _checked(Path(path).read_bytes(), md5)
    except OSError:
        return None


def _checked(content, md5):
    """Parse a JSON object; None unless it has this checksum."""
    if hashlib.md5(content).hexdigest() != md5:
        return None
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
