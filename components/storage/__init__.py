"""One door to files and objects, and the formats that Driftline keeps in them.

- `store`: open, create, list and remove files, whether local or gs:// (`local` and `gcs` are its two sides,
  `location` the grammar of their names, `checksum` the CRC-32C). Of gs://, `gcs_reader` reads by parallel ranges,
  `gcs_upload` uploads resumably, `gcs_failures` says what is tried again; `cache` keeps copies of its folders.
- `texts`: finds, checks and reads the users' texts (Parquet, JSONL, CSV). `text_parquet`, `text_jsonl` (with
  `text_jsonl_kinds`) and `text_csv` hold one reader each, `text_rows` and `text_lines` what they share; `text_rules`
  says what becomes of bad texts, `text_checks` that no id is there twice, `text_selection` which rows are taken
  (`text_filter`, `text_compare` and `text_times` carry it out); `text_source` describes a scanned file, `text_search`
  finds files, `arrow_types` knows the types of carried columns.
- `dataset`: reads an embeddings dataset, ahead of its reader by `prefetch`; `shards` writes its Parquet files
  (`shard_format`), `shard_checks` compares them with the manifest, `shard_reader` decodes one, `deletes` knows the rows
  that are left out, `manifest` describes it all.
- `values`: frozen dataclasses as JSON files, which tasks hand to each other.
- `history`: the drift history, one small file a record.
"""
