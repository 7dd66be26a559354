"""Replace links within a network."""

from collections.abc import Callable

import chainer


def replace_links(
    network: chainer.Link, replacement: Callable[[chainer.Link], chainer.Link | None]
) -> None:
    """Replace links in place, at any depth.

    Args:
        network (chainer.Link): The network. It is not itself replaced.
        replacement (callable): Takes a link and returns the one that replaces it, or :obj:`None` to
            keep it.
    """
    for parent in list(network.links()):
        if isinstance(parent, chainer.ChainList):
            for i, child in enumerate(list(parent)):
                new = replacement(child)
                if new is not None:
                    parent[i] = new
        elif isinstance(parent, chainer.Chain):
            for child in list(parent.children()):
                new = replacement(child)
                if new is not None:
                    _replace_child(parent, str(child.name), new)


def _replace_child(chain: chainer.Chain, name: str, new: chainer.Link) -> None:
    # A sequential chain runs its layers in the order of registration, which must stay.
    order = list(getattr(chain, 'layer_names', ()))
    delattr(chain, name)
    with chain.init_scope():
        setattr(chain, name, new)
    if order:
        chain.layer_names = order
