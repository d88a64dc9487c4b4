"""Where and in which precision a model computes: tf.distribute strategies, the workers of TF_CONFIG, 16 bits."""
