localrules:
    figure,


rule figure:
    """A figure of the paper, or one of all runs, from recorded results."""
    input:
        lambda wildcards: disagrees("figures", wildcards.figure),
        results=lambda wildcards: drawn_from(figure_inputs(wildcards.figure, PARAMS)),
        code=CODE_OF_FIGURES,
    output:
        # update: none is removed before the others are drawn, nor after Ctrl-C.
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
