"""Features of a backbone that stands still: computed once, then only the head is run."""

from finetune.feature_cache.cut import NotCacheable
from finetune.feature_cache.head_stage import HeadStage, Keep, cached_head_stage
from finetune.feature_cache.image_source import ImageSource
from finetune.feature_cache.store import Space, clear, default_folder

__all__ = [
    "HeadStage",
    "ImageSource",
    "Keep",
    "NotCacheable",
    "Space",
    "cached_head_stage",
    "clear",
    "default_folder",
]
