rule train:
    """Train one run, or continue where its training stopped."""
    input:
        lambda wildcards: asked(stage_of("train", PARAMS.run(wildcards.run))),
        data=lambda wildcards: dataset(PARAMS.run(wildcards.run).dataset),
        start=lambda wildcards: starting_files(PARAMS.run(wildcards.run)),
    output:
        model="results/checkpoints/{run}/model.safetensors",
        record="results/checkpoints/{run}/train.json",
        curve="results/checkpoints/{run}/curve.csv",
    log:
        "results/logs/train/{run}.log",
    wildcard_constraints:
        run=left_to_run("train"),
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=lambda wildcards: PARAMS.run(wildcards.run).gpus,
        mem_mb=6000,
    params:
        clock=clock,
        repro=lambda wildcards: repro(stage_of("train", PARAMS.run(wildcards.run))),
    # Snakemake removes a job's log before it starts the job. Here it removes only a link, so that
    # the log of an interrupted training is kept.
    shell:
        "ln -sf {wildcards.run}.history.log {log}; ({params.clock}{params.repro}) >> {log} 2>&1"
