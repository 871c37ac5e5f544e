from runner.measures import Cost, Measurement, declare


@declare(
    trace={
        "feature_rank": (
            "1",
            "Participation ratio of the last hidden features on probes",
        )
    },
    cost=lambda sizes, options: Cost.always("feature rank", 10 * sizes.passes),
)
def feature_rank(now, start):
    """How many directions the last hidden features use: their participation ratio."""
    features = list(now.features().values())[-1].flatten(2)  # cell, sample, unit
    spectrum = (features - features.mean(dim=1, keepdim=True)).svd().S ** 2
    rank = spectrum.sum(dim=1) ** 2 / (spectrum**2).sum(dim=1)
    return Measurement(trace={"feature_rank": rank})
