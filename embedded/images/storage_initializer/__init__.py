"""KServe's storage-initializer image: its real code, kserve-storage of PyPI, in an environment of its own (requirements.txt)."""
