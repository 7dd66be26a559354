"""The networks: backbones, feature pyramid, region proposals, heads, the detector."""
