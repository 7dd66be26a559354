"""Read a file of detections with pandas.

python docs/examples/detections_pandas.py FILE.parquet
"""

import json
import sys

import pandas as pd
import pyarrow.parquet as pq

path = sys.argv[1]
detections = pd.read_parquet(path)

# Text columns are categories: comparing and grouping them is fast.
by_class = detections.groupby('Name', observed=True)['Score'].agg(['count', 'mean'])
print(by_class.sort_values('count', ascending=False).head(10))

# The three best detections of each image
best = detections.sort_values('Score', ascending=False).groupby('ImageID', observed=True).head(3)
print(best[['ImageID', 'Name', 'Score']].head(10))

# Images without detections have no row. Their ids are in the metadata.
empty = json.loads(pq.read_metadata(path).metadata[b'images_without_detections'])
print(f'{len(detections)} detections, {len(empty)} images without')
