"""What is wrong with the BN sites of a model: findings, each with its evidence and the one thing to do about it."""
