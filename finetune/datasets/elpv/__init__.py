"""elpv: electroluminescence images of solar cells of two kinds, as a TFDS dataset over the package elpv-dataset."""
