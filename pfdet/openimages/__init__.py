"""The data set: classes, hierarchy, annotation index, images, and a small synthetic data set."""
