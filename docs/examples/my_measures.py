from runner.measures import Measurement


def feature_rank(now, start):
    """How many directions the last hidden features use: their participation ratio."""
    features = list(now.features().values())[-1].flatten(2)  # cell, sample, unit
    spectrum = (features - features.mean(dim=1, keepdim=True)).svd().S ** 2
    rank = spectrum.sum(dim=1) ** 2 / (spectrum**2).sum(dim=1)
    return Measurement(trace={"feature_rank": rank})
