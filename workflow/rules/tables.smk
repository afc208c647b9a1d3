localrules:
    table,


rule table:
    """The paper's rows and ours, side by side, or its claims with our verdicts."""
    input:
        lambda wildcards: disagrees("tables", wildcards.table),
        results=lambda wildcards: drawn_from(table_inputs(wildcards.table, PARAMS)),
        code=CODE_OF_TABLES,
    output:
        report(
            "results/tables/{table}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        "results/tables/{table}.md",
        "results/tables/{table}.tex",
        "results/tables/{table}.html",
        note="results/drawn/tables/{table}.json",
    log:
        "results/logs/table/{table}.log",
    wildcard_constraints:
        table="|".join(TABLES),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    shell:
        "python -m vlae table {wildcards.table} > {log} 2>&1"
