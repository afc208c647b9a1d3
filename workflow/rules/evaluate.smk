rule evaluate_shard:
    """Estimate log-likelihoods for one part of the test images (only with --config shards=N)."""
    input:
        lambda wildcards: asked(stage_of("evaluate", PARAMS.run(wildcards.run))),
        model="results/checkpoints/{run}/model.safetensors",
        record="results/checkpoints/{run}/train.json",
        data=lambda wildcards: dataset(PARAMS.run(wildcards.run).dataset),
    output:
        touch(scratch("{run}") / "evaluation" / "shard-{part}-of-{parts}.done"),
    log:
        "results/logs/evaluate/{run}.{part}-of-{parts}.log",
    wildcard_constraints:
        run=left_to_run("evaluate"),
        part=r"\d+",
        parts=r"\d+",
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=6000,
    shell:
        "python -m vlae evaluate {wildcards.run} --shard {wildcards.part}/{wildcards.parts}"
        " > {log} 2>&1"


rule evaluate:
    """Estimate log-likelihood, ELBO and KL of the test images; gather the parts, if any."""
    input:
        lambda wildcards: asked(stage_of("evaluate", PARAMS.run(wildcards.run))),
        lambda wildcards: shards_of(wildcards.run),
        model="results/checkpoints/{run}/model.safetensors",
        record="results/checkpoints/{run}/train.json",
        data=lambda wildcards: dataset(PARAMS.run(wildcards.run).dataset),
    output:
        means="results/evaluations/{run}.json",
        images="results/evaluations/{run}.npz",
    log:
        "results/logs/evaluate/{run}.log",
    wildcard_constraints:
        run=left_to_run("evaluate"),
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=6000,
    params:
        repro=lambda wildcards: repro(stage_of("evaluate", PARAMS.run(wildcards.run))),
    shell:
        "({params.repro}) > {log} 2>&1"


rule sample:
    """Draw decompressions of test images, and samples."""
    input:
        lambda wildcards: asked(stage_of("sample", PARAMS.run(wildcards.run))),
        model="results/checkpoints/{run}/model.safetensors",
        record="results/checkpoints/{run}/train.json",
        data=lambda wildcards: dataset(PARAMS.run(wildcards.run).dataset),
    output:
        "results/samples/{run}.npz",
    log:
        "results/logs/sample/{run}.log",
    wildcard_constraints:
        run=left_to_run("sample"),
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem_mb=4000,
    params:
        repro=lambda wildcards: repro(stage_of("sample", PARAMS.run(wildcards.run))),
    shell:
        "({params.repro}) > {log} 2>&1"
