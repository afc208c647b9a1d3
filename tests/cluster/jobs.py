"""What SLURM knows of the jobs of a folder, the finished ones included."""

import re
from dataclasses import dataclass
from pathlib import Path

from cluster import slurm


@dataclass
class Job:
    number: int
    rule: str
    state: str
    gpus: int
    node: str
    partition: str
    restarts: int
    memory: str

    @property
    def running(self) -> bool:
        return self.state == "RUNNING"


def jobs(folder: Path) -> list[Job]:
    found = []
    for line in slurm.client("scontrol", "show", "jobs", "-o").splitlines():
        fields = dict(re.findall(r"(\S+?)=(\S*)", line))
        if fields.get("WorkDir") == str(folder):
            rule = fields["Comment"].removeprefix("rule_").partition("_wildcards_")[0]
            gpus = re.search(r"gpu(?::\w+)*[:=](\d+)", fields.get("TresPerJob", ""))
            found.append(
                Job(
                    int(fields["JobId"]),
                    rule,
                    fields["JobState"],
                    int(gpus[1]) if gpus else 0,
                    fields["NodeList"],
                    fields["Partition"],
                    int(fields["Restarts"]),
                    re.search(r"mem=([^,]+)", fields["TRES"])[1],
                )
            )
    return sorted(found, key=lambda job: job.number)
