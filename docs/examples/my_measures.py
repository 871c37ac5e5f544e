from runner.measures import Measurement


def feature_rank(now, start):
    """Participation ratio of the last hidden features on probes: how many directions they use."""
    features = list(now.features().values())[-1].flatten(2)  # cell, sample, unit
    spectrum = (features - features.mean(dim=1, keepdim=True)).svd().S ** 2
    return Measurement(trace={"feature_rank": spectrum.sum(dim=1) ** 2 / (spectrum**2).sum(dim=1)})
