"""Tests of finetune/cli."""
