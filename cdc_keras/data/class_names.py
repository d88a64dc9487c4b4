"""The names of CIFAR's categories, which a copy without TFDS' label files has as bare numbers."""

import dataclasses

# In the order of the labels, as the official archives have them (Krizhevsky 2009).
NAMES = {
    "cifar10": tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
    "cifar100": tuple(
        """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
        """.split()
    ),
}


def named(dataset):
    """Returns a `Dataset` with the names of its categories, if it is one of `NAMES` and has numbers in their place."""
    names = NAMES.get(dataset.name.split("/")[0].split(":")[0])
    if names is None or dataset.class_names != tuple(map(str, range(len(names)))):
        return dataset
    return dataclasses.replace(dataset, class_names=names)
