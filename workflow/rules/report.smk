localrules:
    report,


rule report:
    """All that is recorded and drawn, as one page in one file."""
    input:
        drawn=IN_REPORT.drawn,
        results=drawn_from(IN_REPORT.recorded),
        texts=list(filter(os.path.exists, IN_REPORT.texts)),
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
