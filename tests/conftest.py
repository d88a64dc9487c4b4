"""The order of the test files."""


def pytest_collection_modifyitems(items):
    """Files with slow tests come first: of several workers none is left alone with one of them in the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
