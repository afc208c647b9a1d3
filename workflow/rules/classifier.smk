rule classifier:
    """Train the classifier that judges the decompressions of a data set's runs."""
    input:
        lambda wildcards: asked(f"classifier@{wildcards.dataset}"),
        data=lambda wildcards: dataset(wildcards.dataset),
    output:
        weights="results/classifiers/{dataset}.safetensors",
        record="results/classifiers/{dataset}.json",
    log:
        "results/logs/classifier/{dataset}.log",
    wildcard_constraints:
        dataset=left_to_run("classifier"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        repro=lambda wildcards: repro(f"classifier@{wildcards.dataset}"),
    shell:
        "({params.repro}) > {log} 2>&1"
