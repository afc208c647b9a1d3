if SUMMARIES:

    localrules:
        summaries,

    rule summaries:
        """What DVC shows of all runs: a few numbers, and the learning curve."""
        input:
            note_of("summaries", "runs"),
            results=summarised_from(),
            code=CODE_OF_SUMMARIES,
        output:
            summarised(),
            record="results/drawn/summaries/runs.json",
        log:
            "results/logs/summaries.log",
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            script=shlex.quote(str(SCRIPTS / "drawn.py")),
            drawn=summarised(),
        shell:
            "python -m vlae summaries > {log} 2>&1 && python {params.script}"
            " {output.record} --from {input.results} --drawn {params.drawn}"
