# Says when and where steps run. DVC decides what the expensive steps are, and whether they have to
# run (dvc.yaml, workflow/rules/common.smk).
#
#     snakemake --cores all                        compute what is missing, draw everything
#     snakemake --cores all --config train=false   draw from the recorded results, train nothing
#     snakemake --cores all --profile slurm        the same on a cluster

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/classifier.smk"
include: "workflow/rules/codelength.smk"
include: "workflow/rules/probe.smk"
include: "workflow/rules/lossy.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/summaries.smk"
include: "workflow/rules/report.smk"


onerror:
    say_why_jobs_failed()


onstart:
    begin()


rule all:
    default_target: True
    input:
        [table_outputs(name) for name in TABLES],
        [figure_outputs(name) for name in FIGURES],
        summarised(),
        results_of_runs(),
        "results/report.html",


check_forced()
