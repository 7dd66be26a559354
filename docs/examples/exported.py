"""Detect the objects of an image with an exported detector, without pfdet and Chainer.

python docs/examples/exported.py model.onnx IMAGE
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime

model, image = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
about = json.loads(session.get_modelmeta().custom_metadata_map['pfdet'])
recipe = about['recipe']

# Resized as in training: the shorter edge to test_sizes, the longer edge to at most max_size
img = cv2.imread(image)[:, :, ::-1]
H, W = img.shape[:2]
scale = min(recipe['test_sizes'][0] / min(H, W), recipe['max_size'] / max(H, W))
method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
img = cv2.resize(img, (round(W * scale), round(H * scale)), interpolation=method)
batch = img.transpose(2, 0, 1)[None].astype(np.float32)
sizes = np.array([img.shape[:2]], np.int64)

boxes, scores, _ = session.run(['boxes', 'scores', 'image'], {'images': batch, 'sizes': sizes})

for label, (mid, name) in enumerate(about['classes']):
    score = scores[:, label]
    box = boxes[:, label if boxes.shape[1] > 1 else 0] * [H, W, H, W]
    # OpenCV takes x, y, width, height.
    corners = np.concatenate([box[:, 1::-1], (box[:, 2:] - box[:, :2])[:, ::-1]], axis=1)
    for i in cv2.dnn.NMSBoxes(corners, score, recipe['score_thresh'], recipe['suppression_iou']):
        print(mid, name, f'{score[i]:.4f}', *(f'{x:.1f}' for x in box[i]))
