rule lossy:
    """Send the codes of test images of a run, and draw images from them."""
    input:
        lambda wildcards: asked(f"lossy@{wildcards.run}"),
        data=lambda wildcards: dataset(PARAMS.lossy[wildcards.run].dataset),
        checkpoint=lambda wildcards: checkpoint(wildcards.run) / "model.safetensors",
        record=lambda wildcards: checkpoint(wildcards.run) / "train.json",
    output:
        "results/lossy/{run}.json",
        "results/lossy/{run}.npz",
    log:
        "results/logs/lossy/{run}.log",
    wildcard_constraints:
        run=left_to_run("lossy"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        repro=lambda wildcards: repro(f"lossy@{wildcards.run}"),
    shell:
        "({params.repro}) > {log} 2>&1"
