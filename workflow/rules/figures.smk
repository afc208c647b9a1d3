localrules:
    figure,


rule figure:
    """Draw a figure from recorded results."""
    input:
        lambda wildcards: disagrees("figures", wildcards.figure),
        results=lambda wildcards: drawn_from(figure_inputs(wildcards.figure, PARAMS)),
        code=CODE_OF_FIGURES,
    output:
        # update: Snakemake does not remove these files before they are drawn, or after Ctrl-C.
        update("results/figures/{figure}.png"),
        update("results/figures/{figure}.pdf"),
        note=update("results/drawn/figures/{figure}.json"),
    log:
        "results/logs/figure/{figure}.log",
    wildcard_constraints:
        figure="|".join(ALL_FIGURES),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    shell:
        "python -m vlae figure {wildcards.figure} > {log} 2>&1"
