rule codelength:
    """Compress the test images of a run, unpack them, and compare with other formats."""
    input:
        lambda wildcards: asked(f"codelength@{wildcards.run}"),
        data=lambda wildcards: dataset(PARAMS.codelengths[wildcards.run].dataset),
        checkpoint=lambda wildcards: checkpoint(wildcards.run) / "model.safetensors",
        record=lambda wildcards: checkpoint(wildcards.run) / "train.json",
    output:
        "results/codelengths/{run}.json",
    log:
        "results/logs/codelength/{run}.log",
    wildcard_constraints:
        run=left_to_run("codelength"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        repro=lambda wildcards: repro(f"codelength@{wildcards.run}"),
    shell:
        "({params.repro}) > {log} 2>&1"
