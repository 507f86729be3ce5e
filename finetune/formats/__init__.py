"""Deployed models as files: read without their training code, written anew by changing the statistics' bytes."""
