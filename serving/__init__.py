"""The streaming side: the KServe server, the Kafka stream worker, the archive and the online drift monitor."""
