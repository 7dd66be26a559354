"""MiniOpenImages: synthetic scenes with the annotation gaps and errors of Open Images.

``world`` defines the classes and distributes objects over images. ``people``, ``vehicles``,
``nature`` and ``things`` draw objects as polygons. ``scene`` places them in an image and computes
what is visible. ``painting`` renders the image. ``annotation`` simulates human annotators.
"""
