localrules:
    report,


rule report:
    """All that is recorded and drawn, as one page in one file."""
    input:
        tables=[table_outputs(name) for name in TABLES],
        figures=[figure_outputs(name) for name in FIGURES],
        results=drawn_from(recorded_inputs(PARAMS)),
        texts=list(filter(os.path.exists, WORKFLOW)),
        code=CODE_OF_REPORT,
    output:
        "results/report.html",
    log:
        "results/logs/report.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    shell:
        "python -m vlae report > {log} 2>&1"
