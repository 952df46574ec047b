"""What a run comes to: its synthetic sets as the field reads them, its figures, and a view of its images."""

from fairdd.evaluation.projection import project_to_plane
from fairdd.evaluation.metrics import summarize
from fairdd.matching.synset import expand_grid


def field_format(task, syn):
    """The synthetic sets as other tools of this field read them: data is a list of [images, labels].

    The images are as stored; synset.decode(images, factor) makes of them what networks are trained on.
    """
    real = task.real
    return {
        "data": [*task.sets, syn.to_list()], "factor": syn.factor,
        "mean": list(real.mean), "std": list(real.std),
        "class_names": list(real.class_names), "group_names": list(real.group_names),
    }


def results(task):
    """Figures over all networks of all experiments; with several models the first one's stand at the top."""
    last = [(place, figures) for place, figures in task.run.networks.items() if place[1] == task.args.Iteration]
    by_model = {
        name: summarize([figures for (_, _, model, _), figures in last if model == name]) for name in task.eval_pool
    }
    first = task.eval_pool[0]
    names = {"class_names": list(task.real.class_names), "group_names": list(task.real.group_names)}
    return by_model[first] | {"model": first, "by_model": by_model} | names


def view(task, syn):
    """The first experiment's set at its start, syn, and at its end, as one random network sees it among real images."""
    net = task.network(task.args.model, task.args.seed, "view")
    sets = {name: decoded(*content, syn.factor) for name, content in (("start", syn.to_list()), ("end", task.sets[0]))}
    return project_to_plane(net, task.real, sets, task.args.seed, "view")


def expanded(images, labels, factor):
    """[images, labels] as networks are trained on them."""
    return [expand_grid(images, factor), labels.repeat_interleave(factor**2)]
