"""Distill with pseudo-groups, noisy groups and partly known groups, beside true groups and controls (docs/groups.md).

    python scripts/group_study.py --out results/groups --jobs 2
    python scripts/group_study.py --out results/groups --list          # the commands

The learning rates were compared on held-out training images; all networks are tested with the true groups.
"""

from study import Study, make_parser, run_study

from fairdd.core.errors import report_user_errors

SETTING = "--model ConvNetW32 --ipc 10 --batch_real 100 --num_eval 3 --epoch_eval_train 100"
DATASETS = {        # its flags, and the number of its groups
    "Colored_MNIST_background": ("--lr_img 10", 10),
    "UTKface": ("--im_size 32 --lr_img 1", 4),
}
CONTROLS = {
    "random real images": "--init real --Iteration 0",
    "balanced real images": "--init balanced --Iteration 0",
    "DM": "--align vanilla --Iteration 200",
}
GROUPS = {          # of DM + FairDD
    "labels": "",
    "k-means, pixels": "--groups kmeans:{groups} --group_features pixels",
    "k-means, random network": "--groups kmeans:{groups} --group_features random",
    "k-means, trained network": "--groups kmeans:{groups} --group_features trained",
    "DBSCAN in each batch": "--groups dbscan",
    "10% wrong": "--group_noise 0.1",
    "15% wrong": "--group_noise 0.15",
    "20% wrong": "--group_noise 0.2",
    "50% wrong": "--group_noise 0.5",
    "5% known": "--known_groups 0.05",
    "5% known, others omitted": "--known_groups 0.05 --unknown_groups omit",
    "20% known": "--known_groups 0.2",
}


def rows(dataset: str) -> dict[str, str]:
    """Return the command of every row of a data set."""
    own_flags, groups = DATASETS[dataset]
    table = CONTROLS | {f"DM + FairDD, {name}": f"--FairDD --Iteration 200 {flags.format(groups=groups)}".rstrip()
                        for name, flags in GROUPS.items()}
    return {row: f"main_DM.py --dataset {dataset} {SETTING} {own_flags} {flags}" for row, flags in table.items()}


@report_user_errors
def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    args = parser.parse_args()
    run_study(args, Study("groups", "where training groups come from",
                          "ConvNetW32, 10 images per class, 100 real images of a class, 200 iterations of DM.\n",
                          {dataset: rows(dataset) for dataset in args.datasets}))


if __name__ == "__main__":
    main()
