"""Write detections for other programs. The same as ``pfdet export-detections``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('export-detections')
