rule probe:
    """Measure what simple classifiers and regressions find in a run's code."""
    input:
        lambda wildcards: asked(f"probe@{wildcards.run}"),
        data=lambda wildcards: dataset(PARAMS.probes[wildcards.run].dataset),
        labels=lambda wildcards: labels(PARAMS.probes[wildcards.run].dataset),
        checkpoint=lambda wildcards: checkpoint(wildcards.run) / "model.safetensors",
        record=lambda wildcards: checkpoint(wildcards.run) / "train.json",
    output:
        "results/probes/{run}.json",
    log:
        "results/logs/probe/{run}.log",
    wildcard_constraints:
        run=left_to_run("probe"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        repro=lambda wildcards: repro(f"probe@{wildcards.run}"),
    shell:
        "({params.repro}) > {log} 2>&1"


rule probe_pixels:
    """Measure what the same classifiers find in the pixels of a data set."""
    input:
        lambda wildcards: asked(f"probe_pixels@{wildcards.dataset}"),
        data=lambda wildcards: dataset(wildcards.dataset),
        labels=lambda wildcards: labels(wildcards.dataset),
    output:
        "results/probes/{dataset}.json",
    log:
        "results/logs/probe_pixels/{dataset}.log",
    wildcard_constraints:
        dataset=left_to_run("probe_pixels"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        repro=lambda wildcards: repro(f"probe_pixels@{wildcards.dataset}"),
    shell:
        "({params.repro}) > {log} 2>&1"
