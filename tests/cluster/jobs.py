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
    started: str  # when: sorts as text
    ended: str
    devices: str  # which of the node's GPUs it has

    @property
    def running(self) -> bool:
        return self.state == "RUNNING"


def jobs(folder: Path) -> list[Job]:
    found = []
    for line in slurm.client("scontrol", "-d", "show", "jobs", "-o").splitlines():
        fields = dict(re.findall(r"(\S+?)=(\S*)", line))
        if fields.get("WorkDir") == str(folder):
            rule = fields["Comment"].removeprefix("rule_").partition("_wildcards_")[0]
            asked = fields.get("TresPerJob", "") + fields.get(
                "TresPerNode", ""
            )  # by --gpus, --gres
            gpus = re.search(r"gpu(?::\w+)*[:=](\d+)", asked)
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
                    fields["StartTime"],
                    fields["EndTime"],
                    "".join(re.findall(r"GRES=gpu\S*\(IDX:([\d,-]+)\)", line)),
                )
            )
    return sorted(found, key=lambda job: job.number)
