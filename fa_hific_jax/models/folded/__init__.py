"""Encoder and generator whose finest level has a quarter of the image's height and width.

The pixels of each 4x4 block are the channels of one position. On a CPU the finest levels of HiFiC,
narrow enough to be affordable, run at a third of the speed of these (DCVC-RT, Jia et al., CVPR
2025, folds for the same reason). `model.encoder_widths` and `model.generator_widths` of three
values instead of five choose them. They belong to none of the implementations of `model.variant`,
of which they take the hyperprior alone.
"""
