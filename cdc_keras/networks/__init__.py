"""The networks as functions that return functional models, the layers Keras does not have, and walking a graph."""
