"""MiniOpenImages: a made world of drawn scenes with the annotation troubles of Open Images.

``world`` says which classes there are and deals them to images, ``people``, ``vehicles``,
``nature`` and ``things`` draw them, ``scene`` puts them together and works out what is visible,
``painting`` makes the photograph, ``annotation`` writes what human annotators would have.
"""
