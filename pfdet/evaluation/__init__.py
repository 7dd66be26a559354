"""Open Images AP, detections files, Kaggle submissions and the HTML report."""
