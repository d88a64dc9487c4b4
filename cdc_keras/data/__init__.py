"""From data sets to batches: `shapes`, TFDS, image folders and arrays in, uint8 images and labels out."""
