"""Data sets with own classes: COCO, Pascal VOC and YOLO files as annotation indexes."""
