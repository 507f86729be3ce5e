"""Where a training left the finite numbers, told by the running statistics.

A forward pass updates the statistics of the sites that follow the batch one after the other; the backward pass
after it spoils every weight at once. So the first site whose statistics are not finite is the first one behind the
place where it happened.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.batchnorm.sites import BNSite


def first_nonfinite(sites: Sequence[BNSite]) -> str:
    """In words, to be put behind a message; nothing where all running statistics are finite."""
    called = [site for site in sites if site.calls and site.built]
    for number, site in enumerate(called, 1):
        held = site.statistics
        if not (np.isfinite(held.mean).all() and np.isfinite(held.variance).all()):
            return (
                f"; the first BN site whose running statistics are not finite is {site.path} "
                f"({number} of {len(called)}): look at what lies in front of it"
            )
    return ""
