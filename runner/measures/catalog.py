"""Every measure of this package, declared: one entry each, in the order of the tables' columns.

Free of torch and pandas, so that ``runner schema`` answers at once.
"""

from collections.abc import Mapping
from typing import Any

from runner.measures.declaration import Cost, Measure, Sizes, columns
from runner.measures.requirements import (
    decomposable,
    enough_probes,
    enough_to_split,
    full_batch,
    integrable,
    known_splits,
    limit_in_width,
    mse,
    one_prediction,
    plain_sgd,
    second_labels,
    sketch_of_vectors,
    sketch_vectors,
    untied,
    wide_mlp,
)

_KERNEL_SEARCH = 13
"""Training steps that a search for the kernel's top eigenvalue is worth."""
_HESSIAN_SEARCH = 22
"""The same for the Hessian's."""
_LINE = 6
"""Training steps that the losses along a line are worth: 17 forward passes."""
_DESCENT = 40
"""Training steps that a Krylov space of the kernel at init is worth."""
_RIDGE = 4
"""Decompositions that a ridge regression with a choice of its ridge is worth."""


def _kernel_search(sizes: Sizes, options: Mapping[str, Any]) -> Cost:
    return Cost.always("kernel search", _KERNEL_SEARCH * sizes.passes)


def _hessian_search(sizes: Sizes, options: Mapping[str, Any]) -> Cost:
    return Cost.always("hessian search", _HESSIAN_SEARCH * sizes.passes)


def _line(sizes: Sizes, options: Mapping[str, Any]) -> Cost:
    return Cost.always("line", _LINE * sizes.passes)


def _probe_kernel(sizes: Sizes, options: Mapping[str, Any]) -> Cost:
    vectors = sketch_vectors(sizes.outputs, sizes.positions, options.get("sketch"))
    seconds = sizes.kernel(sizes.probe, sizes.probe) * (vectors / sizes.outputs if vectors else 1.0)
    return Cost(point={"probe kernel": seconds})


def _spectrum(sizes: Sizes, options: Mapping[str, Any]) -> Cost:
    outputs = sizes.outputs if options.get("kernel", "full") == "full" else 1
    return Cost.always("spectrum", sizes.precise_kernel(outputs) + sizes.decomposition(sizes.train * outputs))


def _ridge(sizes: Sizes) -> float:
    return _RIDGE * sizes.decomposition(sizes.train)


def _regression(sizes: Sizes, options: Mapping[str, Any]) -> Cost:
    seconds = sizes.kernel(sizes.train + sizes.test, sizes.train) + _ridge(sizes)
    return Cost.always("kernel regression", seconds)


def _regression_at_init(sizes: Sizes, options: Mapping[str, Any]) -> Cost:
    return Cost(init=_regression(sizes, options).init)


def _descent(sizes: Sizes, options: Mapping[str, Any]) -> Cost:
    return Cost(init={"kernel descent": _DESCENT * sizes.passes * (1 + sizes.probe / sizes.train)})


def _flow(sizes: Sizes, options: Mapping[str, Any]) -> Cost:
    from runner.optim import Flow

    return Cost(step={"flow": Flow.evaluations * sizes.passes})


def _linear_probe(sizes: Sizes, options: Mapping[str, Any]) -> Cost:
    return Cost.always("linear probe", _ridge(sizes))


def _kept(shape: Any, options: Mapping[str, Any]) -> int:
    sizes = {"train": shape.train_size, "test": shape.test_size, "probe": shape.probe_size}
    return int(shape.outputs * sum(sizes.get(split, 0) for split in options.get("splits", ("probe",))))


MEASURES: tuple[Measure, ...] = (
    Measure("predictions", "outputs", requires=(known_splits,), rows=_kept),
    Measure(
        "param_movement", "movement", prepare="movement.prepare_norms",
        paper="Chizat et al., arXiv 1812.07956",
        trace=columns(
            param_movement=("1", "norm(theta_t - theta_0) / norm(theta_0), raw parameters, all layers"),
        ),
    ),
    Measure(
        "layer_movement", "movement", prepare="movement.prepare_layers",
        layers=columns(
            movement_frobenius=("1", "norm_F(w_t - w_0) / norm_F(w_0) of the layer's weight"),
            movement_spectral=("1", "norm_2(w_t - w_0) / norm_2(w_0) of the layer's weight"),
        ),
    ),
    Measure(
        "ntk_change", "probe_kernel", requires=(sketch_of_vectors,), cost=_probe_kernel,
        prepare="probe_kernel.probe_ntk", paper="Jacot et al., arXiv 1806.07572",
        trace=columns(
            ntk_change=("1", "norm_F(Theta_t - Theta_0) / norm_F(Theta_0), lr-weighted kernel on probes"),
            ntk_sketch_error=("1", "Standard error of the kernel on probes over its norm, where it is "
                "estimated from random vectors, for whichever measure; null where it is exact"),
        ),
    ),
    Measure(
        "kernel_distance", "probe_kernel", requires=(sketch_of_vectors,), cost=_probe_kernel,
        prepare="probe_kernel.probe_ntk",
        paper="Fort et al., arXiv 2010.15110",
        trace=columns(
            kernel_distance=("1", "1 - cos(Theta_t, Theta_0) on probes (Fort et al., arXiv 2010.15110)"),
        ),
    ),
    Measure(
        "feature_movement", "features", prepare="snapshot.Snapshot.features",
        paper="Yang & Hu, arXiv 2011.14522",
        trace=columns(feature_movement=("1", "Relative RMS change of the last hidden activations on probes")),
        layers=columns(feature_movement=("1", "Relative RMS change of the layer's activations on probes")),
    ),
    Measure(
        "update_size", "features", prepare="snapshot.Snapshot.features",
        layers=columns(
            update_size=("activation",
                "RMS change of the layer's activations on probes; of the outputs f for the last layer"),
        ),
    ),
    Measure(
        "cka", "alignment", requires=(enough_probes, sketch_of_vectors), cost=_probe_kernel,
        prepare="alignment.prepare",
        paper="Kornblith et al., arXiv 1905.00414",
        trace=columns(
            cka=("1", "Centred alignment of Theta_t with Theta_0 on probes (arXiv 1905.00414)"),
            feature_cka=("1", "Centred alignment of the last hidden activations with init, probes"),
        ),
    ),
    Measure(
        "target_alignment", "alignment", requires=(enough_probes, sketch_of_vectors), cost=_probe_kernel,
        prepare="alignment.centred_ntk", paper="Cristianini et al., NeurIPS 2001",
        trace=columns(target_alignment=("1", "Centred alignment of Theta_t with y y^T on probes")),
    ),
    Measure(
        "linearization_error", "linearization", requires=(enough_probes,),
        paper="Lee et al., arXiv 1902.06720",
        trace=columns(
            linearization_error=(
                "1", "RMS(f_t - [f_0 + J_0 (theta_t - theta_0)]) / RMS(f_t - f_0) on probes"
            ),
        ),
    ),
    Measure(
        "kernel_gd_error", "kernel_descent", requires=(full_batch, mse, plain_sgd, enough_probes),
        cost=_descent, prepare="kernel_descent.prepare", paper="Lee et al., arXiv 1902.06720",
        trace=columns(
            kernel_gd_error=("1",
                "RMS(f_t - g_t) / RMS(g_t - f_0) on probes, g_t after t steps of GD under the fixed Theta_0"),
        ),
    ),
    Measure(
        "flow_distance", "flow", requires=(full_batch, plain_sgd, enough_probes, integrable), cost=_flow,
        paper="Cohen et al., arXiv 2103.00065",
        trace=columns(
            flow_distance=("1", "RMS(f_t - f(lr t)) / RMS(f(lr t) - f_0) on probes, f(s) gradient flow from "
                "the same init after a time of s"),
            flow_weight_distance=("1", "norm(theta_t - theta(lr t)) / norm(theta(lr t) - theta_0), raw "
                "parameters of the same"),
            flow_error=("1", "Estimated errors of all substeps of gradient flow over the length of its path, "
                "of this measure or of optimizer=flow; null without either"),
        ),
    ),
    Measure(
        "kernel_regression", "regression", requires=(one_prediction, enough_to_split), cost=_regression,
        prepare="regression.ntk_regression",
        trace=columns(
            kernel_regression_loss=("loss", "Test loss, half the mean squared error, of ridge regression "
                "of y with Theta_t; its ridge chosen on a split of train"),
            kernel_interpolation_loss=("loss", "The same without a ridge: where descent with Theta_t ends"),
            kernel_regression_error=(
                "fraction", "Misclassified test samples of that regression; null for regression tasks"
            ),
        ),
        init=columns(
            kernel_regression_loss_init=("loss", "Test loss of ridge regression with Theta_0"),
            kernel_interpolation_loss_init=("loss", "The same without a ridge: where kernel descent ends"),
            kernel_regression_error_init=(
                "fraction", "Misclassified test samples of that regression; null for regression tasks"
            ),
        ),
    ),
    Measure(
        "ntk_gain", "regression", requires=(mse, one_prediction, enough_to_split), cost=_regression_at_init,
        prepare="regression.ntk_regression", best=("ntk_gain",),
        trace=columns(ntk_gain=("loss", "Test loss of ridge regression with Theta_0 minus the network's")),
    ),
    Measure(
        "spectrum", "kernel_spectrum", requires=(decomposable,), cost=_spectrum,
        prepare="kernel_spectrum.eigenvalues",
        trace=columns(
            lambda_min=("1/lr", "Smallest eigenvalue of the lr-weighted train kernel / N: of its trace over "
                "outputs / O, or of the full kernel if `measure.functions.spectrum.kernel` is full"),
            condition_number=("1", "Largest over smallest eigenvalue of the kernel of lambda_min; inf where "
                "rounding hides the smallest"),
            effective_rank=("1", "Exponential of the entropy of that kernel's eigenvalues over their sum "
                "(Roy & Vetterli 2007)"),
        ),
        init=columns(
            lambda_min_init=("1/lr", "lambda_min at init"),
            condition_number_init=("1", "condition_number at init"),
        ),
    ),
    Measure(
        "lambda_max", "kernel", in_cells=False, cost=_kernel_search,
        paper="Lewkowycz et al., arXiv 2003.02218",
        trace=columns(lambda_max=("1/lr", "Top eigenvalue of the full lr-weighted train kernel / N")),
        init=columns(
            lambda_max_init=("1/lr", "Top eigenvalue of the full lr-weighted train kernel / N at init"),
        ),
    ),
    Measure(
        "sharpness", "curvature", cost=_hessian_search, paper="Cohen et al., arXiv 2103.00065",
        trace=columns(
            sharpness=("1/lr", "Top eigenvalue of the lr-weighted Hessian of the train loss; "
                "lr * sharpness = 2 is the edge"),
        ),
    ),
    Measure(
        "transfer_gain", "transfer", requires=(second_labels, enough_to_split), cost=_linear_probe,
        prepare="transfer.prepare",
        trace=columns(
            transfer_gain=("fraction", "Test error on a second labelling of a linear probe on the last "
                "hidden features: at init minus now"),
        ),
    ),
    Measure(
        "ntk_limit_distance", "limit", of_init=True, requires=(enough_probes,),
        prepare="probe_kernel.probe_ntk",
        paper="Jacot et al., arXiv 1806.07572",
        trace=columns(
            ntk_limit_distance=("1", "norm_F(Theta_0 - Theta_inf) / norm_F(Theta_inf) on probes at init, "
                "Theta_inf of infinite width"),
        ),
    ),
    Measure(
        "limit_distance", "infinite_width",
        requires=(full_batch, mse, plain_sgd, enough_probes, wide_mlp), requires_cell=(limit_in_width,),
        cost=_probe_kernel, prepare="infinite_width.prepare", paper="Bordelon & Pehlevan, arXiv 2205.09653",
        trace=columns(
            limit_function_distance=("1", "RMS(f - f_inf) / RMS(f_inf) on probes, f_inf of infinite width at "
                "the same step: mean-field limit, under ntk the lazy one; null at init, where f_inf is 0"),
            limit_kernel_distance=("1", "norm_F(Theta - Theta_inf) / norm_F(Theta_inf) of the lr-weighted "
                "kernel on probes, likewise at the same step"),
            limit_kernel_gap=("1", "<Theta - Theta_inf, Theta_inf> / norm_F(Theta_inf)^2: the same with a "
                "sign, so that its mean over seeds falls as 1 / width"),
            limit_train_loss=("loss", "Training loss of infinite width at the same step"),
            lazy_train_loss=("loss", "The same without richness: gradient descent under the kernel at init"),
            limit_error=("1", "Standard error of the limit by sampling: of its loss over that at init or of "
                "its kernel over its norm, the larger; 0 where the limit is exact"),
        ),
    ),
    Measure(
        "pattern_change", "features", prepare="features.pattern", paper="Kunin et al., arXiv 2406.06158",
        trace=columns(
            pattern_change=("1", "Share of (unit of the last hidden layer, probe) pairs whose pre-activation "
                "changed its sign since init; null without a thresholded activation"),
        ),
        layers=columns(
            pattern_change=("1",
                "Share of (unit of the layer, probe) pairs whose pre-activation changed its sign since init"),
        ),
    ),
    Measure(
        "loss_barrier", "landscape", cost=_line, paper="Kalra & Barkeshli, arXiv 2302.12250",
        trace=columns(
            loss_barrier=("1", "Largest train loss on the straight line from init to now over that at init; "
                "1 if no point of it is above init"),
        ),
    ),
    Measure(
        "branch_linearization_error", "blocks", paper="Dey et al., arXiv 2505.01618",
        layers=columns(
            branch_linearization_error=("1", "Distance on probes of what a residual branch returns from its "
                "linearization in this weight alone, over the linear change; null outside of branches"),
        ),
    ),
    Measure(
        "update_parts", "features", requires=(untied,), prepare="features.received",
        paper="Haas et al., arXiv 2505.22491",
        layers=columns(
            update_own=("activation",
                "RMS on probes of (W_t - W_0) x_t, what its own weight changed; over gamma for the last"),
            update_passed=("activation",
                "RMS on probes of W_0 (x_t - x_0), what the change of its inputs did; likewise"),
        ),
    ),
    Measure(
        "update_alignment", "features", requires=(untied,), prepare="features.received",
        paper="Everett et al., arXiv 2407.05872",
        layers=columns(
            alignment_alpha=("1", "log(RMS(W x) / (RMS(W) RMS(x))) / log(fan_in) on probes, of W_t - W_0 and "
                "x_0: 1/2 independent, 1 aligned; null at init and where nothing is summed over"),
            alignment_omega=("1", "The same of W_0 and x_t - x_0; null where inputs do not change, too"),
            alignment_u=("1", "The same of W_t - W_0 and x_t - x_0; likewise"),
        ),
    ),
    Measure(
        "update_logits", "logits", prepare="logits.logits", paper="Yang et al., arXiv 2203.03466",
        layers=columns(
            update_logits=("1", "RMS change on probes of the attention logits by which the layer's inputs "
                "were mixed; null where no attention comes before it"),
            logits_bound=("1", "RMS on probes of the largest that they can be, norm(query) * norm(key) times "
                "their factor; null where queries and keys are not known"),
        ),
    ),
)  # fmt: skip
BY_NAME: dict[str, Measure] = {measure.name: measure for measure in MEASURES}


def declaration_of(function: Any) -> Measure:
    """Return the declaration of a measure's function; an empty one for a function that has none.

    Args:
        function: As ``_target_`` names it, without its options.
    """
    own = getattr(function, "__measure__", None)
    if isinstance(own, Measure):
        return own
    name = getattr(function, "__name__", "")
    known = BY_NAME.get(name)
    if known is not None and getattr(function, "__module__", "") == f"runner.measures.{known.module}":
        return known
    return Measure(name)
