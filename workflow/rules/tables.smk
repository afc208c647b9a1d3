localrules:
    table,


rule table:
    """Draw a table from recorded results."""
    input:
        lambda wildcards: disagrees("tables", wildcards.table),
        results=lambda wildcards: drawn_from(table_inputs(wildcards.table, PARAMS)),
        code=CODE_OF_TABLES,
    output:
        # update: Snakemake does not remove these files before they are drawn, or after Ctrl-C.
        update("results/tables/{table}.csv"),
        update("results/tables/{table}.md"),
        update("results/tables/{table}.tex"),
        update("results/tables/{table}.html"),
        note=update("results/drawn/tables/{table}.json"),
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
