"""Detect objects in the images of an index.

python docs/examples/predict.py INDEX RUN
"""

import sys

validation_index, run = sys.argv[1:]

# START
from pfdet.inference.predict import predict  # noqa: E402
from pfdet.openimages.dataset import OpenImagesDataset  # noqa: E402
from pfdet.openimages.index import AnnotationIndex  # noqa: E402
from pfdet.training import model_directory  # noqa: E402

index = AnnotationIndex.open(validation_index)
model = model_directory.read(run)
settings = model_directory.predict_settings(model.recipe)
detections = predict(model.network, OpenImagesDataset(index), range(4), settings)
for image, label, score in zip(detections.image, detections.label, detections.score):
    print(detections.image_ids[image], model.classes.names[label], score)
# END
