"""The function itself, kept: outputs on samples."""

from collections.abc import Sequence

from runner.measures.snapshot import Measurement, Snapshot


def predictions(now: Snapshot, start: Snapshot, *, splits: Sequence[str] = ("probe",)) -> Measurement:
    """Return the outputs f = (h - h at init if centred) / gamma on every sample of some splits.

    They go to the table ``outputs``, a row for each sample and output: what an ensemble of seeds predicts, or
    how far two networks are apart, follows from them.

    Args:
        splits: Of ``probe``, ``test`` and ``train``.
    """
    return Measurement(outputs={split: now.outputs(split) for split in splits})
