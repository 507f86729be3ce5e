"""A policy, a backbone, a dataset and a format that finetune finds by their entry points."""
