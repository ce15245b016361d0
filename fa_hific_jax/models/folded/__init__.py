"""Encoder and generator whose finest level has a quarter of the image's height and width.

The pixels of each 4x4 block are the channels of one position. Levels of HiFiC that are narrow
enough for a CPU run at a third of the speed of such wide ones at low resolution; DCVC-RT (Jia et
al., CVPR 2025) works at low resolution alone for the same reason. Three values in
`model.encoder_widths` and `model.generator_widths` choose these networks. They belong to none of
the implementations of `model.variant`, of which they take the hyperprior alone.
"""
