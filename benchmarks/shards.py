"""Balance of an evaluation's shards, and their fixed cost.

    python -m benchmarks.shards RUN [--shards 1 2 4 8 16]

It computes all blocks of a recorded run's evaluation on one thread, in its own scratch folder. It
measures the CPU seconds of each block and of the start before the first one (Python, torch, model,
data), and derives the seconds of each shard. Efficiency is the seconds of a single job / (jobs x
seconds of the slowest job). CPU time is used because wall time also depends on other programs.
"""

import argparse
import json
import os
import sys
import tempfile
import time

import torch

from vlae.config.load import load_params
from vlae.data.dataset import load
from vlae.evaluation import evaluate
from vlae.evaluation.blocks import Block


def block_seconds(name: str) -> tuple[float, list[tuple[Block, float]]]:
    """Return the CPU seconds before the first block, and each block with its own."""
    torch.set_num_threads(1)
    params = load_params("params.yaml")
    run = params.run(name)
    begun, seconds, work = [], [], []
    compute, write, share = evaluate.estimates, evaluate.write_npz, evaluate.shares

    def timed_compute(*arguments):
        begun.append(time.process_time())
        return compute(*arguments)

    def timed_write(path, **arrays):
        write(path, **arrays)
        seconds.append(time.process_time() - begun[-1])

    def noted_shares(blocks, count):
        work.extend(share(blocks, count)[0])
        return [work]

    evaluate.estimates, evaluate.write_npz = timed_compute, timed_write
    evaluate.shares = noted_shares
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VLAE_SCRATCH"] = scratch
        dataset = load(run.dataset, params.image_kind(run.dataset))
        evaluate.evaluate(run, dataset, device="cpu", shard=(1, 1))
    evaluate.shares = share
    return begun[0], list(zip(work, seconds, strict=True))


def shared(start: float, blocks: list[tuple[Block, float]], count: int) -> dict:
    """Return seconds of the quickest and slowest of `count` jobs, and their efficiency."""
    seconds = {block.name: spent for block, spent in blocks}
    shares = evaluate.shares([block for block, _ in blocks], count)
    jobs = [start + sum(seconds[block.name] for block in share) for share in shares]
    return {
        "quickest_s": round(min(jobs), 1),
        "slowest_s": round(max(jobs), 1),
        "efficiency": round((start + sum(seconds.values())) / count / max(jobs), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    options = parser.parse_args()
    start, blocks = block_seconds(options.run)
    found = {"run": options.run, "start_s": round(start, 1)}
    for kind in ("images", "deep", "draw"):
        of_kind = [spent for block, spent in blocks if block.name.startswith(kind)]
        found[kind] = {"blocks": len(of_kind), "seconds": round(sum(of_kind), 1)}
    found["shards"] = {count: shared(start, blocks, count) for count in options.shards}
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
