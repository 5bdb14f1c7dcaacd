"""Raw archives, folders and hub data sets to packed arrays, and the lowest layer: files and failures."""

VERSION = "0.2.0"  # of Relaunch: here, because a checkout that is not installed has no other record of it
