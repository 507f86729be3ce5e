"""Let the running statistics follow the new data while gamma and beta stay as they were pretrained.

The division of labour of AdaBN (Li et al. 2016, arXiv:1603.04779): what a domain looks like is in the
statistics, what the network makes of it is in the weights; here the weights are fine-tuned as well.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from finetune.policies.following import Following


class Statistics(Following):
    """Normalise with the batch; running statistics follow, then are measured anew; gamma and beta stay fixed."""

    policy: Literal["statistics"] = "statistics"
    affine_trains: ClassVar[bool] = False
