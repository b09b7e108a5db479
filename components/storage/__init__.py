"""One door to files and objects, and the formats that Driftline keeps in them.

- `store`: open, create, list and remove files, whether local or gs:// (`local` and `gcs` are its two sides,
  `location` the grammar of their names, `checksum` the CRC-32C).
- `texts`: finds, checks and reads the users' texts (Parquet, JSONL, CSV); `text_parquet`,
  `text_jsonl` and `text_csv` hold one reader each, `text_rows` what they share, `text_checks` the rules for
  ids and texts, `text_search` the finding of files, `arrow_types` the types of carried columns.
- `dataset`: reads an embeddings dataset; `shards` writes its Parquet files, `manifest` describes it.
- `values`: frozen dataclasses as JSON files, which tasks hand to each other.
- `history`: the drift history, one small file a record.
"""
