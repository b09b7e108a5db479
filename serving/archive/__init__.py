"""The archive: embeddings from their topic into datasets by date and hour, each record once.

`partition.py` is the heart. The state of a partition is one small object, replaced only over the version that its
owner read; that replacement is the commit. The state names the offset to go on at and the changes of the last commit to
the hourly datasets, so that the next owner can apply them before anything else. Files of rows are written before the
commit, under names that no other commit can have; manifests are changed after it, each over the version that was read.
So at any moment:

- every offset below the state's is in the hourly datasets, or in the changes that the state names;
- no offset at or above it is;
- files of a worker that has lost its partition are never named by a state or a manifest.

The offsets that Kafka keeps for the group follow behind. They show the lag; the archive does not resume from them.
"""
