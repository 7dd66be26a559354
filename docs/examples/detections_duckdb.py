"""Query a file of detections with DuckDB, which reads only the columns that a query names.

python docs/examples/detections_duckdb.py FILE.parquet
"""

import sys

import duckdb

path = sys.argv[1]
for row in duckdb.execute(
    """
    SELECT Name, count(*) AS n, avg(Score) AS mean, avg((XMax - XMin) * (YMax - YMin)) AS area
    FROM read_parquet(?) GROUP BY Name ORDER BY n DESC, Name LIMIT 10
    """,
    [path],
).fetchall():
    print(*row)

# Images with a confident detection of each of two classes
query = """
    SELECT a.ImageID FROM read_parquet($path) a JOIN read_parquet($path) b USING (ImageID)
    WHERE a.Name = 'Person' AND b.Name = 'Car' AND least(a.Score, b.Score) >= 0.5
    GROUP BY ImageID ORDER BY ImageID
"""
print(len(duckdb.execute(query, {'path': path}).fetchall()), 'images with a person and a car')
