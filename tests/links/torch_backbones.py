"""The backbones in PyTorch with the parameter names of the public checkpoints.

They follow the public definitions (torchvision, pretrainedmodels) and use no code of pfdet.
test_backbones_against_torch.py loads this file by path and compares with it.
"""

import math
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

LAYERS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def conv(i, o, k, stride=1, groups=1, bias=False):
    return nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=bias)


class SEModule(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1 = conv(channels, channels // 16, 1, bias=True)
        self.fc2 = conv(channels // 16, channels, 1, bias=True)

    def forward(self, x):
        gate = self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1))))
        return x * torch.sigmoid(gate)


class Bottleneck(nn.Module):
    def __init__(self, i, mid1, mid2, o, stride, groups, se, down, eps):
        super().__init__()
        self.conv1, self.bn1 = conv(i, mid1, 1), nn.BatchNorm2d(mid1, eps)
        self.conv2, self.bn2 = conv(mid1, mid2, 3, stride, groups), nn.BatchNorm2d(mid2, eps)
        self.conv3, self.bn3 = conv(mid2, o, 1), nn.BatchNorm2d(o, eps)
        self.bn3.ends_branch = True
        if se:
            self.se_module = SEModule(o)
        if stride != 1 or i != o:
            self.downsample = nn.Sequential(conv(i, o, down, stride), nn.BatchNorm2d(o, eps))

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        if hasattr(self, 'se_module'):
            h = self.se_module(h)
        return F.relu(h + (self.downsample(x) if hasattr(self, 'downsample') else x))


def stages(layers, i, mids, outs, groups, se=False, half=False, down=1, eps=1e-5):
    """Make four stages.

    ``half`` halves the channels of the first convolution, as in SENet-154. ``down`` is the kernel
    size of the shortcut with stride 2.
    """
    layers_of_stages = []
    for n, (mid, o) in enumerate(zip(mids, outs)):
        blocks = []
        for b in range(layers[n]):
            stride = 2 if n > 0 and b == 0 else 1
            blocks.append(
                Bottleneck(
                    i,
                    mid // 2 if half else mid,
                    mid,
                    o,
                    stride,
                    groups,
                    se,
                    down if stride == 2 else 1,
                    eps,
                )
            )
            i = o
        layers_of_stages.append(nn.Sequential(*blocks))
    return layers_of_stages


OUT = (256, 512, 1024, 2048)


class ResNet(nn.Module):
    """ResNet with torchvision's names: conv1, bn1, layer1 to layer4, fc."""

    def __init__(self, layers, width=64, groups=1):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(
            layers, 64, [width * 2**n for n in range(4)], OUT, groups
        )
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        return c2, c3, c4, c5, self.fc(c5.mean((2, 3)))


class SENet(nn.Module):
    """SENet with pretrainedmodels' names: layer0, layer1 to layer4, last_linear."""

    def __init__(self, stem, pool, layers, i, mids, outs, groups, half=False, down=1, eps=1e-5):
        super().__init__()
        parts = OrderedDict()
        for n, (a, b, k, stride) in enumerate(stem, 1):
            parts[f'conv{n}'] = conv(a, b, k, stride)
            parts[f'bn{n}'] = nn.BatchNorm2d(b, eps)
            parts[f'relu{n}'] = nn.ReLU()
        parts['pool'] = nn.MaxPool2d(pool, 2, ceil_mode=True)
        self.layer0 = nn.Sequential(parts)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(
            layers, i, mids, outs, groups, True, half, down, eps
        )
        self.last_linear = nn.Linear(outs[-1], 1000)

    def forward(self, x):
        c2 = self.layer1(self.layer0(x))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        return c2, c3, c4, c5, self.last_linear(c5.mean((2, 3)))


class Sum(nn.Sequential):
    """Sum of the residual branch and the shortcut."""

    def forward(self, x):
        return self[0](x) + (self[1](x) if len(self) > 1 else x)


class NestedResNeXt(nn.Module):
    """resnext101_32x4d with pretrainedmodels' names: nested numbers, last_linear."""

    def __init__(self, layers):
        super().__init__()
        features = [conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        i = 64
        for n, o in enumerate(OUT):
            mid, blocks = o // 2, []
            for b in range(layers[n]):
                stride = 2 if n > 0 and b == 0 else 1
                branches = [
                    nn.Sequential(
                        nn.Sequential(
                            conv(i, mid, 1),
                            nn.BatchNorm2d(mid),
                            nn.ReLU(),
                            conv(mid, mid, 3, stride, 32),
                            nn.BatchNorm2d(mid),
                            nn.ReLU(),
                        ),
                        conv(mid, o, 1),
                        nn.BatchNorm2d(o),
                    )
                ]
                branches[0][2].ends_branch = True
                if b == 0:
                    branches.append(nn.Sequential(conv(i, o, 1, stride), nn.BatchNorm2d(o)))
                blocks.append(nn.Sequential(Sum(*branches), nn.Identity(), nn.ReLU()))
                i = o
            features.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*features)
        self.last_linear = nn.Linear(2048, 1000)

    def forward(self, x):
        maps = []
        for n, layer in enumerate(self.features):
            x = layer(x)
            if n >= 4:
                maps.append(x)
        return *maps, self.last_linear(x.mean((2, 3)))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.fc1 = conv(channels, squeezed, 1, bias=True)
        self.fc2 = conv(squeezed, channels, 1, bias=True)

    def forward(self, x):
        gate = self.fc2(F.silu(self.fc1(F.adaptive_avg_pool2d(x, 1))))
        return x * torch.sigmoid(gate)


def conv_bn(i, o, k=1, stride=1, groups=1, activation=True):
    layers = [conv(i, o, k, stride, groups), nn.BatchNorm2d(o, 1e-3)]
    return nn.Sequential(*layers, *[nn.SiLU()] * activation)


class MBConv(nn.Module):
    def __init__(self, i, o, expand, k, stride):
        super().__init__()
        mid = i * expand
        layers = [conv_bn(i, mid)] if expand > 1 else []
        layers += [
            conv_bn(mid, mid, k, stride, mid),
            SqueezeExcitation(mid, i // 4),
            conv_bn(mid, o, activation=False),
        ]
        self.block = nn.Sequential(*layers)
        self.add = stride == 1 and i == o
        layers[-1][1].ends_branch = self.add

    def forward(self, x):
        return self.block(x) + x if self.add else self.block(x)


class EfficientNetB7(nn.Module):
    """EfficientNet-B7 with torchvision's names: features.0 to features.8, classifier.1."""

    def __init__(self):
        super().__init__()
        # Published channels of B7, layers of B0 (multiplied by 3.1 below).
        table = [
            (1, 3, 1, 32, 1),
            (6, 3, 2, 48, 2),
            (6, 5, 2, 80, 2),
            (6, 3, 2, 160, 3),
            (6, 5, 1, 224, 3),
            (6, 5, 2, 384, 4),
            (6, 3, 1, 640, 1),
        ]
        features, i = [conv_bn(3, 64, 3, 2)], 64
        for expand, k, stride, o, n in table:
            blocks = []
            for b in range(math.ceil(n * 3.1)):
                blocks.append(MBConv(i, o, expand, k, stride if b == 0 else 1))
                i = o
            features.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*features, conv_bn(640, 2560))
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(2560, 1000))

    def forward(self, x):
        maps = []
        for n, layer in enumerate(self.features):
            x = layer(x)
            if n in (2, 3, 5, 7):
                maps.append(x)
        return *maps, self.classifier(x.mean((2, 3)))


def se_resnext(depth):
    return SENet([(3, 64, 7, 2)], 3, LAYERS[depth], 64, (128, 256, 512, 1024), OUT, 32)


NETWORKS = {
    'resnet50': lambda: ResNet(LAYERS[50]),
    'resnet101': lambda: ResNet(LAYERS[101]),
    'resnext101': lambda: ResNet(LAYERS[101], 128, 32),
    'resnext101 nested': lambda: NestedResNeXt(LAYERS[101]),
    'resnext152': lambda: ResNet(LAYERS[152], 256, 32),
    'se_resnext50': lambda: se_resnext(50),
    'se_resnext101': lambda: se_resnext(101),
    'senet154': lambda: SENet(
        [(3, 64, 3, 2), (64, 64, 3, 1), (64, 128, 3, 1)],
        3,
        LAYERS[152],
        128,
        OUT,
        OUT,
        64,
        half=True,
        down=3,
    ),
    'efficientnet_b7': EfficientNetB7,
    'mini_se_resnext': lambda: SENet(
        [(3, 32, 5, 2)], 2, (1, 1, 1, 1), 32, (32, 64, 128, 256), (64, 128, 256, 512), 4, eps=2e-5
    ),
}


def random_network(name, seed):
    """Make a network with random weights and batch statistics, well-conditioned at any depth.

    The output of the last layers depends on the image and not on rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    # The meta device skips the initialization, which is overwritten below.
    with torch.device('meta'):
        network = NETWORKS[name]()
    network = network.to_empty(device='cpu').eval()
    # Variances as small as in real checkpoints, so that a wrong eps changes the output.
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    scale = math.sqrt(10 * norms[0].eps)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            if fan_in > 9:
                # Zero-mean filters, because the positive mean after ReLU would otherwise dominate.
                module.weight.data -= (
                    module.weight.flatten(1).mean(1).reshape(-1, *[1] * (module.weight.ndim - 1))
                )
            if module.bias is None:
                module.weight.data *= scale
            else:
                module.bias.data.normal_(1, 0.5, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            if getattr(module, 'ends_branch', False):
                # Branches as strong as the shortcut would make deep networks ill-conditioned.
                module.weight.data *= 0.3
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1 * scale, generator=generator)
            module.running_var.uniform_(0.5 * scale**2, 1.5 * scale**2, generator=generator)
            module.num_batches_tracked.fill_(7)
    return network
