"""fashion_shift: the 10,000 Fashion-MNIST test images in four disjoint splits, as a TFDS dataset."""
