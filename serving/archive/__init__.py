"""The archive: embeddings off their topic into datasets by date and hour, each record once.

A partition's state is one small object, replaced only over the version that its owner read: the moment at which a
commit happens. It names the offset to go on at and what the last commit changes in the hours' datasets, so that whoever
opens the partition next can finish that before anything else. Files are written before, under names that no other
commit can have; manifests are changed after, each over the version that was read. So at any moment:

- every offset below the state's is in the hours' datasets, or is about to be by the changes that the state names;
- no offset at or above it is;
- what a worker wrote that lost its partition is never named by a state or a manifest.

Kafka's own committed offsets follow; they tell the lag, and are not what the archive resumes from.
"""
