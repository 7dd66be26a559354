"""Show detections in FiftyOne, from an export to COCO.

python docs/examples/detections_fiftyone.py IMAGES instances.json results.json
"""

import json
import sys

import fiftyone as fo
import fiftyone.utils.coco as fouc

images, truth, results = sys.argv[1:]
dataset = fo.Dataset.from_dir(
    dataset_type=fo.types.COCODetectionDataset,
    data_path=images,
    labels_path=truth,
    label_types=['detections'],
    label_field={'detections': 'ground_truth'},
    include_id=True,
)
with open(truth, encoding='utf-8') as file:
    categories = json.load(file)['categories']
fouc.add_coco_labels(dataset, 'predictions', results, categories, coco_id_field='coco_id')
print(dataset.count('predictions.detections'), 'detections in', len(dataset), 'images')

evaluation = dataset.evaluate_detections('predictions', gt_field='ground_truth', eval_key='eval')
evaluation.print_report()
# fo.launch_app(dataset) opens the images in the browser.
