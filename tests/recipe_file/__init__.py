"""Tests of finetune/recipe_file, and the recipe that they spoil one key at a time."""

GOOD = """\
backbone:
  source: bundled
data:
  source: tfds
  name: fashion_shift
  shift: {kind: fog, severity: 3}
batchnorm:
  policy: retrain
  finish: none
stages:
  - train: head
    epochs: 2
    learning_rate: 1e-1
"""
