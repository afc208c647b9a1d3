if summarised():

    localrules:
        summaries,

    rule summaries:
        """Write the numbers and the learning curve that DVC shows for each run."""
        input:
            disagrees("summaries", "runs"),
            results=drawn_from(summary_inputs(PARAMS)),
            code=CODE_OF_SUMMARIES,
        output:
            update(summarised()),
            note=update("results/drawn/summaries/runs.json"),
        log:
            "results/logs/summaries.log",
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            mem_mb=1000,
        shell:
            "python -m vlae summaries > {log} 2>&1"
