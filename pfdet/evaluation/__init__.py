"""Open Images AP, ground truth, detections files and Kaggle submissions."""
