localrules:
    figure,


rule figure:
    """A figure of the paper, or one of all runs, from recorded results."""
    input:
        lambda wildcards: disagrees("figures", wildcards.figure),
        results=lambda wildcards: drawn_from(figure_inputs(wildcards.figure, PARAMS)),
        code=CODE_OF_FIGURES,
    output:
        report(
            "results/figures/{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        "results/figures/{figure}.pdf",
        note="results/drawn/figures/{figure}.json",
    log:
        "results/logs/figure/{figure}.log",
    wildcard_constraints:
        figure="|".join(FIGURES),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    shell:
        "python -m vlae figure {wildcards.figure} > {log} 2>&1"
