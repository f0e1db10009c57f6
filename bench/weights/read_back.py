"""KServe's storage-initializer, as its image's entrypoint calls it: read_back.py SOURCE FOLDER"""

import sys

from kserve_storage import Storage

Storage.download_files([sys.argv[1]], [sys.argv[2]])
