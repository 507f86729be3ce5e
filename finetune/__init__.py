"""Fine-tune pretrained vision networks with the BatchNorm decision explicit, proven and repairable.

Importing this package imports neither TensorFlow nor Keras: `finetune --help` and `finetune check`
have to answer at once.
"""
