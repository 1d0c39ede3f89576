"""The engine: training, evaluation and prediction on files and devices, around the functions of `step`."""
