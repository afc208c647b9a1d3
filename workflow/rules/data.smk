rule fetch:
    """Download a data set or take it from a mirror, and prepare it."""
    input:
        lambda wildcards: asked(f"fetch@{wildcards.dataset}"),
    output:
        "data/{dataset}.npz",
    log:
        "results/logs/fetch/{dataset}.log",
    wildcard_constraints:
        dataset=left_to_run("fetch"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        repro=lambda wildcards: repro(f"fetch@{wildcards.dataset}"),
    shell:
        "({params.repro}) > {log} 2>&1"


rule labels:
    """Fetch and prepare the labels of a data set's images."""
    input:
        lambda wildcards: asked(f"labels@{wildcards.dataset}"),
    output:
        "data/labels/{dataset}.npz",
    log:
        "results/logs/labels/{dataset}.log",
    wildcard_constraints:
        dataset=left_to_run("labels"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        repro=lambda wildcards: repro(f"labels@{wildcards.dataset}"),
    shell:
        "({params.repro}) > {log} 2>&1"


if FOUND["restore"]:  # except in a dry run: only recorded targets of the command line

    localrules:
        restore,

    rule restore:
        """Check out recorded results from the cache."""
        output:
            FOUND["restore"],
        log:
            "results/logs/restore.log",
        conda:
            "../../environment.yml"
        shell:
            "python -m dvc --wait-for-lock checkout -q {output} > {log} 2>&1"
