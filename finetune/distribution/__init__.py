"""One training on several devices or machines, by public calls of tf.distribute alone.

Keras' own `fit` does not run under MultiWorkerMirroredStrategy (keras#20585). Here the model, its optimizer and all
that is around a training stay what they are in one process; a strategy runs the gradient of each share of a batch and
adds them up (`step.py`), and a loop calls the callbacks as `fit` does (`loop.py`).
"""
