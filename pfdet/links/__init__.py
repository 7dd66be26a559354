"""Networks: backbones, feature pyramid, region proposal network, head and detector."""
