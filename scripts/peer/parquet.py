"""Writes the Parquet files under pkg/dataset/testdata with Arrow's own library (pyarrow 26.0.1), for TestParquetOfArrow.

    python scripts/peer/parquet.py pkg/dataset/testdata
"""

import sys

import pyarrow as pa
import pyarrow.parquet as pq

texts = [None if i % 7 == 3 else f"Zeile {i % 17}: " + "ä" * (i % 5) for i in range(200)]
table = pa.table({"id": list(range(200)), "text": texts, "doc": [{"n": i, "body": t} for i, t in enumerate(texts)]})
# A null inside of a null: every other missing body has no doc around it.
docs = [None if t is None and i % 2 else {"n": i, "body": t} for i, t in enumerate(texts)]
table = table.set_column(2, "doc", pa.array(docs))

for name, options in {
    "snappy-dictionary": dict(compression="snappy"),
    "zstd-dictionary-v2": dict(compression="zstd", data_page_version="2.0", data_page_size=256),
    "gzip-plain": dict(compression="gzip", use_dictionary=False, write_page_checksum=True),
    "brotli-delta-length": dict(compression="brotli", use_dictionary=False, column_encoding={"text": "DELTA_LENGTH_BYTE_ARRAY", "doc.body": "DELTA_LENGTH_BYTE_ARRAY"}),
    "none-delta-v2": dict(compression="none", use_dictionary=False, data_page_version="2.0", column_encoding={"text": "DELTA_BYTE_ARRAY", "doc.body": "DELTA_BYTE_ARRAY"}),
    "lz4-dictionary": dict(compression="lz4", row_group_size=50, write_page_index=True),
}.items():
    pq.write_table(table, f"{sys.argv[1]}/{name}.parquet", **options)
